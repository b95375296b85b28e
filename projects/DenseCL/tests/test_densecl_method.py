"""DenseCL: what every method passes; its step against the paper by hand."""

import copy

import pytest
import torch
from test_densecl_losses import oracle
from torch import nn
from torch.nn import functional as F

from moco_densecl import add_densecl_config, densecl
from moco_densecl.densecl import DenseCL
from moco_det.modeling.encoder import feature_map
from moco_det.modeling.grouped_batch_norm import GroupedBatchNorm2d
from moco_det.modeling.heads import mlp
from moco_det.pretrain.moco.losses import info_nce
from moco_det.pretrain.moco.plan import queue_too_large
from moco_det.pretrain.plan.advice import advise
from moco_det.pretrain.plan.facts import Facts
from moco_det.testing.core import REPOSITORY
from moco_det.testing.methods import PIXELS, MethodSuite, random_batch


class MapEncoder(nn.Module):
    """The parts of a ResNet that DenseCL asks for, in their order: a map, its mean, the head."""

    WIDTH = 24

    def __init__(self, group):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, self.WIDTH, 3, stride=4), GroupedBatchNorm2d(self.WIDTH, group)
        self.relu = nn.ReLU()
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), mlp((self.WIDTH, self.WIDTH, 6), None)


def make_model(group=4, **changes):
    torch.manual_seed(0)
    settings = {
        **{"dim": 6, "queue_size": 24, "momentum": 0.9, "temperature": 0.2, "shuffle_bn": True},
        **{"dense_share": 0.5, "grid": 0, "warmup_steps": 1, "seed": 1, **PIXELS},
    }
    return DenseCL(encoder=MapEncoder(group), **{**settings, **changes}).double().train()


def heads_by_hand(encoder, dense, images, model):
    """Map (n, D, P), embedding (n, C), dense vectors (n, C, P) by copies, batch norm over 4 images at a time."""
    encoder = copy.deepcopy(encoder)
    x = (images.double() - model.pixel_mean) / model.pixel_std
    full = feature_map(encoder, x)
    image = F.normalize(encoder.fc(full.mean((2, 3))), dim=1)
    return full.flatten(2).detach(), image.detach(), dense(full).flatten(2).detach()


def check_step(iteration, share):
    """Compare a step without shuffled keys, whose permutation no hand follows; comparing processes has it."""
    model = make_model(shuffle_bn=False)
    model.encoder_q.fc[0].weight.data *= 1.1  # else both encoders are the same
    model.dense_q[0].weight.data *= 1.2
    batch = random_batch(0)
    with torch.no_grad():
        for key, query in ((model.encoder_k, model.encoder_q), (model.dense_k, model.dense_q)):
            expected = copy.deepcopy(key)
            for p, q in zip(expected.parameters(), query.parameters(), strict=True):
                p.copy_(0.9 * p + 0.1 * q)
            if key is model.encoder_k:
                encoder_k = expected
            else:
                dense_k = expected
    query_map, q, r = heads_by_hand(model.encoder_q, model.dense_q, batch["query"], model)
    key_map, k, t = heads_by_hand(encoder_k, dense_k, batch["key"], model)
    queue, dense_queue = model.queue.keys.clone(), model.dense_queue.keys.clone()
    outputs = model({**batch, "iteration": iteration})

    image_loss = float(info_nce((q * k).sum(1), q @ queue, 0.2))
    position_loss = oracle(query_map, key_map, F.normalize(r, dim=1), F.normalize(t, dim=1), dense_queue)
    assert float(outputs["loss_contrastive"].detach()) == pytest.approx((1 - share) * image_loss, rel=1e-9)
    assert float(outputs["loss_dense"].detach()) == pytest.approx(share * position_loss, rel=1e-9)
    bound = torch.tensor(25.0).log() - position_loss
    assert float(outputs["mutual_information_dense"]) == pytest.approx(float(bound), rel=1e-6)
    torch.testing.assert_close(model.queue.keys[:, :8].T, k)
    torch.testing.assert_close(model.dense_queue.keys[:, :8].T, F.normalize(t.mean(2), dim=1))
    outputs["loss_dense"].backward()
    assert (model.dense_q[0].weight.grad.abs().max() > 0) == (share > 0)
    assert model.dense_k[0].weight.grad is None


def test_a_grid_is_pooled_from_the_map():
    model = make_model(grid=1)
    embedded = model.embed(model.encoder_q, model.dense_q, random_batch(0)["query"])
    assert embedded.map.shape == (8, 24, 1) and embedded.dense.shape == (8, 6, 1)
    torch.testing.assert_close(embedded.dense[..., 0], embedded.pooled)


class TestDenseCL(MethodSuite):
    add_config = staticmethod(add_densecl_config)
    recipes = REPOSITORY / "projects/DenseCL/configs"
    # Section 4.1.
    published = {
        name: {
            **{"MODEL.DENSECL.LAMBDA": 0.5, "MODEL.MOCO.DIM": 128, "MODEL.MOCO.QUEUE_SIZE": 65536},
            **{"MODEL.MOCO.MOMENTUM": 0.999, "MODEL.MOCO.TEMPERATURE": 0.2},
            **{"INPUT.VIEWS.RECIPE": "v2", "INPUT.VIEWS.SIZE": 224, "SOLVER.IMS_PER_BATCH": 256},
            **{"SOLVER.BASE_LR": lr, "SOLVER.EPOCHS": epochs, "SOLVER.WEIGHT_DECAY": 1e-4},
            "SOLVER.LR_SCHEDULER_NAME": "EpochCosineLR",
        }
        for name, lr, epochs in (("densecl_R_50_200ep", 0.03, 200), ("densecl_R_50_coco_800ep", 0.3, 800))
    }
    tiny = (
        "toy/densecl_R_18",
        {
            **{"MODEL.MOCO.DIM": 6, "MODEL.MOCO.QUEUE_SIZE": 16, "MODEL.MOCO.MOMENTUM": 0.9},
            **{"MODEL.MOCO.TEMPERATURE": 0.2, "MODEL.DENSECL.WARMUP_STEPS": 1, "INPUT.VIEWS.SIZE": 36},
        },
    )
    refused = (
        ("MODEL.DENSECL.LAMBDA", 1.5),
        ("MODEL.DENSECL.GRID", -1),
        ("MODEL.MOCO.QUEUE_SIZE", 4, "MODEL.MOCO.QUEUE_SIZE is 4", "SOLVER.IMS_PER_BATCH 8"),
    )
    bugs = (
        (densecl, "correspondence", "argmax(dim=2)", "argmax(dim=1)"),
        (DenseCL, "compare", "(1 - weight) * image_loss", "weight * image_loss"),
        (DenseCL, "forward", "momentum_update(self.dense_k, self.dense_q, self.momentum)", "pass"),
        (DenseCL, "forward", "self.dense_queue.enqueue(step.keys.pooled)", "pass"),
        (DenseCL, "embed", "grid.detach()", "grid.detach().flip(2)"),
    )

    @staticmethod
    def make_model(group=4, accumulate=1):
        return make_model(group, accumulate=accumulate)

    def check_step(self):
        """The first step has no dense loss."""
        check_step(0, 0.0)
        check_step(1, 0.5)

    def test_a_plan_has_the_advice_on_a_queue(self):
        facts = Facts(self.tiny_config(), num_images=32)  # a queue of 16 is half of them
        assert queue_too_large(facts) in advise(facts)
