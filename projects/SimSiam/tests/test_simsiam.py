"""SimSiam: what every method passes; its step against loops, the predictor's learning rate."""

import copy
from pathlib import Path

import pytest
import torch

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
from moco_simsiam import SimSiam, add_simsiam_config, simsiam
from moco_simsiam.simsiam import negative_cosine


def equation_4(model, batch):
    """Image by image."""
    f, h = copy.deepcopy(model.encoder_q), copy.deepcopy(model.predictor)
    z = [by_groups(f, view) for view in plain_views(batch)]
    p = [by_groups(h, view) for view in z]
    loss = 0
    for i in range(len(z[0])):
        for prediction, target in ((p[0][i], z[1][i].detach()), (p[1][i], z[0][i].detach())):
            cosine = (prediction / prediction.norm()) @ (target / target.norm())
            loss = loss - cosine / 2 / len(z[0])
    return loss, {"encoder_q": f, "predictor": h}


class TestSimSiam(MethodSuite):
    add_config = staticmethod(add_simsiam_config)
    recipes = Path(__file__).resolve().parents[1] / "configs"
    published = {
        "simsiam_R_50_100ep": {
            **{"SOLVER.OPTIMIZER": "SGD", "SOLVER.LR_SCHEDULER_NAME": "EpochCosineLR"},
            **{"SOLVER.IMS_PER_BATCH": 512, "SOLVER.BASE_LR": 0.05 * 512 / 256, "SOLVER.WEIGHT_DECAY": 1e-4},
            **{"SOLVER.EPOCHS": 100, "SOLVER.WARMUP_EPOCHS": 0, "MODEL.ENCODER.NORM": "SyncBN"},
            **{"MODEL.SIMSIAM.DIM": 2048, "MODEL.SIMSIAM.PREDICTOR_DIM": 512},
            **{"MODEL.SIMSIAM.PREDICTOR_LR_FACTOR": 1, "MODEL.SIMSIAM.FIX_PREDICTOR_LR": True},
            **{"INPUT.VIEWS.RECIPE": "v2", "INPUT.VIEWS.CROP_SCALE": (0.2, 1.0)},
        }
    }
    tiny = (
        "simsiam_R_50_100ep",
        {
            **{"MODEL.SIMSIAM.DIM": 32, "MODEL.SIMSIAM.PREDICTOR_DIM": 8},
            "MODEL.SIMSIAM.PREDICTOR_LR_FACTOR": 3.0,
        },
    )
    refused = (
        ("MODEL.SIMSIAM.PREDICTOR_DIM", 0),
        ("MODEL.SIMSIAM.PREDICTOR_LR_FACTOR", 0.0),
        ("MODEL.ENCODER.BN_GROUP_SIZE", 1, "MODEL.ENCODER.BN_GROUP_SIZE", "groups of 1 image"),
    )
    bugs = (
        (simsiam, "negative_cosine", "z.detach()", "z"),  # the stopped gradient
        (SimSiam, "forward", "negative_cosine(p_2, z_1)", "negative_cosine(p_2, z_2)"),
        (SimSiam, "forward", "negative_cosine(p_1, z_2) / 2", "negative_cosine(p_1, z_2)"),
    )

    @staticmethod
    def make_model(group=4, accumulate=1, fix_predictor_lr=True):
        torch.manual_seed(0)
        head = mlp((SmallEncoder.WIDTH, 16, 16, 8), group, last_norm=True, last_affine=False)
        settings = {"predictor_lr": 0.1, "fix_predictor_lr": fix_predictor_lr, "accumulate": accumulate}
        model = SimSiam(
            encoder=SmallEncoder(group, head), predictor=mlp((8, 4, 8), group), **settings, **PIXELS
        )
        return model.double().train()

    def check_step(self):
        assert_step_equals(equation_4, self.make_model(), random_batch(0))

    def test_the_predictor_keeps_its_learning_rate(self):
        """The second of two epochs: the encoder's is halved."""
        whole = self.whole_run()
        encoder, predictor = (group["lr"] for group in whole.optimizer.param_groups)
        assert (encoder, predictor) == (pytest.approx(0.05), pytest.approx(0.3))
        names = [{id(p) for p in group["params"]} for group in whole.optimizer.param_groups]
        assert names[1] == {id(p) for p in whole.method.predictor.parameters()}
        assert names[0] == {id(p) for p in whole.method.encoder_q.parameters()}
        assert not self.make_model().parameter_groups()[1]["decay_lr"]
        assert self.make_model(fix_predictor_lr=False).parameter_groups()[1]["decay_lr"]

    def test_the_plan_tells_of_the_predictor(self):
        rows = method_rows(Facts(self.tiny_config(), 1000))
        assert rows[1] == ("predictor", "its learning rate 0.3 stays")


def test_the_loss_equals_lightlys():
    cosine = pytest.importorskip("lightly.loss").NegativeCosineSimilarity()
    p, z = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(negative_cosine(p, z), cosine(p, z))
