"""SimCLR: what every method passes; its loss against loops."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from moco_det.modeling.heads import mlp
from moco_det.pretrain.plan.facts import Facts
from moco_det.pretrain.plan.plan import method_rows
from moco_det.testing.methods import (
    PIXELS,
    MethodSuite,
    SmallEncoder,
    assert_step_equals,
    by_groups,
    plain_views,
    random_batch,
)
from moco_simclr import SimCLR, add_simclr_config, simclr
from moco_simclr.simclr import nt_xent_logits

TAU = 0.3


def equation_1(model, batch):
    """The mean of l(2k-1, 2k) and l(2k, 2k-1) by loops, as the paper numbers the views."""
    encoder = copy.deepcopy(model.encoder_q)
    z_1, z_2 = (by_groups(encoder, view) for view in plain_views(batch))
    z = [z_view[k] for k in range(len(z_1)) for z_view in (z_1, z_2)]
    sim = lambda i, j: z[i] @ z[j] / (z[i].norm() * z[j].norm())  # noqa: E731

    def loss(i, j):
        others = [(sim(i, k) / TAU).exp() for k in range(len(z)) if k != i]
        return -((sim(i, j) / TAU).exp() / sum(others)).log()

    pairs = range(0, len(z), 2)
    return sum(loss(i, i + 1) + loss(i + 1, i) for i in pairs) / len(z), {"encoder_q": encoder}


class TestSimCLR(MethodSuite):
    add_config = staticmethod(add_simclr_config)
    recipes = Path(__file__).resolve().parents[1] / "configs"
    published = {
        "simclr_R_50_1000ep": {
            **{
                "SOLVER.OPTIMIZER": "LARS",
                "SOLVER.LR_SCHEDULER_NAME": "CosineLR",
                "SOLVER.WARMUP_EPOCHS": 10,
            },
            **{"SOLVER.IMS_PER_BATCH": 4096, "SOLVER.BASE_LR": 0.3 * 4096 / 256, "SOLVER.WEIGHT_DECAY": 1e-6},
            **{"MODEL.SIMCLR.DIM": 128, "MODEL.SIMCLR.HIDDEN_DIM": 2048, "MODEL.SIMCLR.TEMPERATURE": 0.1},
            **{"INPUT.VIEWS.RECIPE": "simclr", "INPUT.VIEWS.CROP_SCALE": (0.08, 1.0)},
            "MODEL.ENCODER.NORM": "SyncBN",
        }
    }
    tiny = (
        "simclr_R_50_1000ep",
        {"MODEL.SIMCLR.HIDDEN_DIM": 32, "MODEL.SIMCLR.DIM": 16, "SOLVER.WARMUP_EPOCHS": 1},
    )
    refused = (
        ("MODEL.SIMCLR.TEMPERATURE", 0.0),
        ("MODEL.SIMCLR.DIM", 0),
        ("MODEL.ENCODER.NORM", "GN"),
    )
    accumulates = False  # the loss compares all images of a step
    bugs = (
        (simclr, "nt_xent_logits", "masked_fill(itself, -torch.inf)", "masked_fill(itself, 0.0)"),
        (simclr, "nt_xent_logits", "/ temperature", "* temperature"),
        (SimCLR, "forward", "nt_xent_logits(z_2, all_1, all_2", "nt_xent_logits(z_2, all_2, all_1"),
        (SimCLR, "forward", "own.repeat(2)", "own.flip(0).repeat(2)"),
    )

    @staticmethod
    def make_model(group=4, accumulate=1):
        torch.manual_seed(0)
        encoder = SmallEncoder(group, mlp((SmallEncoder.WIDTH, 16, 8), None))
        return SimCLR(encoder=encoder, temperature=TAU, **PIXELS).double().train()

    def check_step(self):
        """Batch norm over groups of 4; the bound on mutual information has 15 candidates."""
        model = self.make_model()
        outputs = assert_step_equals(equation_1, model, random_batch(0))
        bound = math.log(15) - outputs["loss_nt_xent"].item()
        assert outputs["mutual_information"] == pytest.approx(bound)
        assert model.encoder_q.bn1.num_batches_tracked == 1

    def test_the_plan_counts_the_negatives(self):
        cfg = self.tiny_config()
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = 512, 0.6
        (_, rate), row = method_rows(Facts(cfg, 10_000))
        assert "0.3 x 512 / 256, gives 0.6" in rate
        assert row == ("negatives", "1,022, both views of the other images of the batch")


def nt_xent(z_1, z_2, tau):
    own = torch.arange(len(z_1))
    z_1, z_2 = F.normalize(z_1, dim=1), F.normalize(z_2, dim=1)
    logits = [nt_xent_logits(z_1, z_2, z_1, own, tau), nt_xent_logits(z_2, z_1, z_2, own, tau)]
    return F.cross_entropy(torch.cat(logits), own.repeat(2))


def test_the_loss_by_hand():
    """Two images whose views are alike, at right angles: a positive at 1, two negatives at 0."""
    z = torch.eye(2)
    assert float(nt_xent(z, z, 0.5)) == pytest.approx(math.log(1 + 2 * math.exp(-2)))


def test_the_loss_equals_lightlys():
    loss = pytest.importorskip("lightly.loss").NTXentLoss(temperature=TAU)
    z_1, z_2 = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(nt_xent(z_1, z_2, TAU), loss(z_1, z_2))
