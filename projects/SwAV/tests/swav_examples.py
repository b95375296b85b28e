"""SwAV at a size that loops can follow, in float64, and batches with small crops."""

import copy

import torch

from moco_det.modeling.heads import mlp
from moco_det.testing.core import REPOSITORY
from moco_det.testing.methods import SmallEncoder, tiny_method_config
from moco_swav import add_swav_config
from moco_swav.swav import SwAV

RECIPES = REPOSITORY / "projects/SwAV/configs"
DIM, PROTOTYPES, QUEUE = 6, 5, 16


def tiny_config(output="", **solver):
    cfg = tiny_method_config(RECIPES / "toy/swav_R_18.yaml", add_swav_config, output, **solver)
    swav = cfg.MODEL.SWAV
    swav.DIM, swav.HIDDEN_DIM, swav.PROTOTYPES = DIM, 16, PROTOTYPES
    swav.QUEUE_SIZE, swav.QUEUE_START_EPOCH = QUEUE, 0
    cfg.INPUT.VIEWS.SMALL_SIZE = 16
    return cfg


def make_model(group=4, **changes):
    torch.manual_seed(0)
    settings = {
        **{
            "dim": DIM,
            "prototypes": PROTOTYPES,
            "temperature": 0.1,
            "epsilon": 0.05,
            "sinkhorn_iterations": 3,
        },
        **{"freeze_prototypes_epochs": 1, "pixel_mean": [120.0] * 3, "pixel_std": [60.0] * 3},
    }
    encoder = SmallEncoder(group, mlp((SmallEncoder.WIDTH, 8, DIM), group))
    return SwAV(encoder=encoder, **{**settings, **changes}).double().train()


def embed_by_hand(model, images):
    """Unit-length embeddings by a copy, whose statistics nobody reads."""
    z = copy.deepcopy(model.encoder_q)((images.double() - 120) / 60)
    return z / z.norm(dim=1, keepdim=True)
