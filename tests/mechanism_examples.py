"""The three mechanisms at a size in which loops can follow them, in float64."""

from unittest import mock

import torch
from torch import nn

from moco_det.modeling.grouped_batch_norm import bn_group_size
from moco_det.pretrain.method import StepState
from moco_det.pretrain.moco import model as moco
from moco_det.pretrain.moco.model import MoCo
from moco_det.testing.core import set_keys, tiny_pretrain_config
from moco_det.testing.methods import SmallEncoder

IMAGES, TAU, T = 20, 0.2, 0.3
SETTINGS = {
    "two encoders": {"DICTIONARY": "end_to_end"},
    "shared encoder": {"DICTIONARY": "end_to_end", "SHARED_ENCODER": True},
    "symmetric": {"DICTIONARY": "end_to_end", "SYMMETRIC": True},
    "bank": {"DICTIONARY": "memory_bank", "QUEUE_SIZE": 12, "BANK_MOMENTUM": T, "PROXIMAL": 0.3},
    "bank with nce": {"DICTIONARY": "memory_bank", "QUEUE_SIZE": 12, "BANK_MOMENTUM": T, "LOSS": "nce"},
}
BY_LOOPS = tuple(SETTINGS)
SETTINGS |= {
    "in micro-batches": {"DICTIONARY": "end_to_end", "ACCUMULATE": 2, "BN_GROUP_SIZE": 2},
    "symmetric queue": {"DICTIONARY": "queue", "SYMMETRIC": True, "QUEUE_SIZE": 24},
    "symmetric in micro-batches": {
        **{"DICTIONARY": "end_to_end", "SYMMETRIC": True, "SHARED_ENCODER": True},
        **{"ACCUMULATE": 2, "BN_GROUP_SIZE": 2},
    },
    "queue": {"DICTIONARY": "queue"},  # against Algorithm 1 in test_moco_model.py
    "one group over both ranks": {"DICTIONARY": "end_to_end", "BN_GROUP_SIZE": 8},
}


def small_encoder(cfg):
    return SmallEncoder(bn_group_size(cfg), nn.Linear(SmallEncoder.WIDTH, cfg.MODEL.MOCO.DIM))


def make_model(setting, encoder=small_encoder, **solver):
    """Make a model in float64, the bank too, so that rounding hides nothing."""
    cfg = tiny_pretrain_config(**solver)
    cfg.DATASETS.NUM_IMAGES = IMAGES
    set_keys(cfg, SETTINGS[setting])
    torch.manual_seed(0)
    with mock.patch.object(moco, "build_encoder", encoder):
        return MoCo(cfg).double().train()


def make_batch(iteration):
    """Two views of 8 different images."""
    generator = torch.Generator().manual_seed(iteration)
    views = torch.randint(0, 256, (2, 8, 3, 9, 9), generator=generator, dtype=torch.uint8)
    index = torch.randperm(IMAGES, generator=generator)[:8]
    return {"query": views[0], "key": views[1], "index": index, "iteration": iteration}


def step(model, batch):
    """All micro-batches of a step: the loss, and gradients in place."""
    model.zero_grad()
    total, shared = 0.0, StepState()
    count = getattr(model, "module", model).accumulate
    for part in range(count):
        outputs = model({**batch, "micro_batch": part, "step": shared})
        loss = sum(value for name, value in outputs.items() if name.startswith("loss")) / count
        loss.backward()
        total += loss.item()
    return total


def gradients(*encoders):
    """All gradients in one row; zeros where there are none."""
    parameters = [p for encoder in encoders for p in encoder.parameters()]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


def embed(encoder, images, order):
    """Unit-length embeddings, batch norm over 4 images at a time in this order."""
    mean = torch.tensor([123.675, 116.28, 103.53]).double().view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).double().view(3, 1, 1)
    found = [None] * 8
    for group in (order[:4], order[4:]):
        for place, row in zip(group, encoder((images[group].double() - mean) / std), strict=True):
            found[place] = row / row.norm()
    return found
