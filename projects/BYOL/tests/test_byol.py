"""BYOL: what every method passes; its step against loops, its target's momentum, fine-tuning."""

import copy
import math
from pathlib import Path

import pytest
import torch

from moco_byol import BYOL, add_byol_config, byol
from moco_byol.byol import regression_loss
from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.engine.record import read_run_record
from moco_det.finetune.command import make_parser, run
from moco_det.modeling.heads import mlp
from moco_det.pretrain.plan.facts import Facts
from moco_det.pretrain.plan.plan import method_rows
from moco_det.testing.methods import (
    PIXELS,
    MethodSuite,
    SmallEncoder,
    assert_step_equals,
    assert_target_follows,
    by_groups,
    plain_views,
    random_batch,
)
from moco_det.toyworld.make import make_toyworld

TAU = 0.9


def equation_2(model, batch):
    """Both orders, image by image."""
    f, q, target = (copy.deepcopy(m) for m in (model.encoder_q, model.predictor, model.encoder_k))
    x = plain_views(batch)
    predictions = [by_groups(q, by_groups(f, view)) for view in x]
    targets = [by_groups(target, view).detach() for view in x]
    loss = 0
    for i in range(len(x[0])):
        for p, z in ((predictions[0][i], targets[1][i]), (predictions[1][i], targets[0][i])):
            loss = loss + (p / p.norm() - z / z.norm()).square().sum() / len(x[0])
    return loss, {"encoder_q": f, "predictor": q}


class TestBYOL(MethodSuite):
    add_config = staticmethod(add_byol_config)
    recipes = Path(__file__).resolve().parents[1] / "configs"
    # Section 3.3 and appendix B.
    published = {
        "byol_R_50_1000ep": {
            **{
                "SOLVER.OPTIMIZER": "LARS",
                "SOLVER.LR_SCHEDULER_NAME": "CosineLR",
                "SOLVER.WARMUP_EPOCHS": 10,
            },
            **{
                "SOLVER.IMS_PER_BATCH": 4096,
                "SOLVER.BASE_LR": 0.2 * 4096 / 256,
                "SOLVER.WEIGHT_DECAY": 1.5e-6,
            },
            **{"SOLVER.EPOCHS": 1000, "MODEL.BYOL.MOMENTUM": 0.996, "MODEL.ENCODER.NORM": "SyncBN"},
            **{"MODEL.BYOL.DIM": 256, "MODEL.BYOL.HIDDEN_DIM": 4096},
            **{"INPUT.VIEWS.RECIPE": "byol", "INPUT.VIEWS.CROP_SCALE": (0.08, 1.0)},
        }
    }
    tiny = (
        "byol_R_50_1000ep",
        {
            **{"MODEL.BYOL.HIDDEN_DIM": 32, "MODEL.BYOL.DIM": 16, "MODEL.BYOL.MOMENTUM": 0.5},
            "SOLVER.WARMUP_EPOCHS": 1,
        },
    )
    refused = (
        ("MODEL.BYOL.MOMENTUM", 1.5),
        ("MODEL.BYOL.HIDDEN_DIM", 0),
        ("MODEL.ENCODER.BN_GROUP_SIZE", 1, "MODEL.ENCODER.BN_GROUP_SIZE", "groups of 1 image"),
        ("SOLVER.ACCUMULATE", 4, "BN_GROUP_SIZE is 4", "the 2 images of a micro-batch"),
    )
    bugs = (
        (BYOL, "forward", "predictions[0], targets[1]", "predictions[0], targets[0]"),
        (BYOL, "after_step", "cosine_momentum(self.momentum, progress)", "self.momentum"),
        (byol, "regression_loss", "2 - 2 *", "2 -"),
    )

    @staticmethod
    def make_model(group=4, accumulate=1):
        torch.manual_seed(0)
        encoder = SmallEncoder(group, mlp((SmallEncoder.WIDTH, 16, 8), group))
        predictor = mlp((8, 16, 8), group)
        model = BYOL(encoder=encoder, predictor=predictor, momentum=TAU, accumulate=accumulate, **PIXELS)
        for p in model.encoder_k.parameters():  # as after some steps: no longer the online network
            p.data.mul_(1.1)
        return model.double().train()

    def check_step(self):
        """The predictor and the running statistics are no part of the target."""
        assert_step_equals(equation_2, self.make_model(), random_batch(0))
        assert_target_follows(self.make_model(), TAU)

    def test_the_result_fine_tunes(self, tmp_path, monkeypatch):
        weights = self.converted().output
        counts = {"num_unlabeled": 1, "num_per_class_train": 1, "num_per_class_test": 1}
        make_toyworld(tmp_path / "toyworld", image_size=64, num_train=13, num_test=12, **counts)
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
        register_toy_datasets()
        words = ("--config-file", "toy/faster_rcnn_R_18_FPN", "--num-gpus", "0", "--init", "moco")
        words += ("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "2")
        words += ("SOLVER.STEPS", "()", "SOLVER.MAX_ITER", "2", "TEST.PRECISE_BN.NUM_ITER", "1", "SEED", "1")
        words += ("MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(tmp_path / "out"))
        try:
            run(make_parser().parse_args(words))
        finally:
            monkeypatch.undo()
            register_toy_datasets()
        assert not math.isnan(read_run_record(tmp_path / "out")["metrics"]["bbox/AP"])

    def test_the_plan_tells_the_momentum(self):
        cfg = self.tiny_config()
        cfg.MODEL.BYOL.MOMENTUM = 0.996
        assert method_rows(Facts(cfg, 1000))[1] == (
            "target",
            "momentum 0.996, rising to 1: it follows over 250 steps at first",
        )


def test_the_loss_by_hand():
    """Parallel, opposite and at right angles: 0, 4 and 2."""
    prediction = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    target = torch.tensor([[1.0, 0.0], [-5.0, 0.0], [1.0, 0.0]])
    pairs = zip(prediction.split(1), target.split(1), strict=True)
    assert [float(regression_loss(*pair)) for pair in pairs] == [0, 4, 2]


def test_the_loss_equals_lightlys():
    cosine = pytest.importorskip("lightly.loss").NegativeCosineSimilarity()
    p, z = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(regression_loss(p, z), 2 + 2 * cosine(p, z))
