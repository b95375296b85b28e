"""MoCo v3: what every method passes; its step against loops, the keys' momentum."""

import copy
import math
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
    assert_target_follows,
    by_groups,
    plain_views,
    random_batch,
)
from moco_v3 import MoCoV3, add_moco_v3_config

TAU, M = 0.3, 0.9


def algorithm_1(model, batch):
    """ctr(q1, k2) + ctr(q2, k1), query by query."""
    f, h, f_k = (copy.deepcopy(m) for m in (model.encoder_q, model.predictor, model.encoder_k))
    x = plain_views(batch)
    q_1, q_2 = (by_groups(h, by_groups(f, view)) for view in x)
    k_1, k_2 = (by_groups(f_k, view).detach() for view in x)
    loss, unit = 0, lambda v: v / v.norm()
    for queries, keys in ((q_1, k_2), (q_2, k_1)):
        for i, q in enumerate(queries):
            logits = torch.stack([unit(q) @ unit(k) / TAU for k in keys])
            loss = loss - 2 * TAU * logits.log_softmax(0)[i] / len(queries)
    return loss, {"encoder_q": f, "predictor": h}


class TestMoCoV3(MethodSuite):
    add_config = staticmethod(add_moco_v3_config)
    recipes = Path(__file__).resolve().parents[1] / "configs"
    published = {
        "moco_v3_R_50_100ep": {
            **{
                "SOLVER.OPTIMIZER": "LARS",
                "SOLVER.LR_SCHEDULER_NAME": "CosineLR",
                "SOLVER.WARMUP_EPOCHS": 10,
            },
            **{"SOLVER.IMS_PER_BATCH": 4096, "SOLVER.BASE_LR": 0.6 * 4096 / 256, "SOLVER.WEIGHT_DECAY": 1e-6},
            **{"MODEL.MOCO_V3.DIM": 256, "MODEL.MOCO_V3.HIDDEN_DIM": 4096, "MODEL.ENCODER.NORM": "SyncBN"},
            **{"MODEL.MOCO_V3.TEMPERATURE": 1.0, "MODEL.MOCO_V3.MOMENTUM": 0.99},
            **{"INPUT.VIEWS.RECIPE": "byol", "INPUT.VIEWS.CROP_SCALE": (0.2, 1.0)},
        }
    }
    tiny = (
        "moco_v3_R_50_100ep",
        {
            **{"MODEL.MOCO_V3.HIDDEN_DIM": 32, "MODEL.MOCO_V3.DIM": 16, "MODEL.MOCO_V3.MOMENTUM": 0.5},
            "SOLVER.WARMUP_EPOCHS": 1,
        },
    )
    refused = (
        ("MODEL.MOCO_V3.TEMPERATURE", 0.0),
        ("MODEL.MOCO_V3.MOMENTUM", -0.1),
        ("MODEL.MOCO_V3.PROJECTOR_LAYERS", 0),
        ("MODEL.ENCODER.BN_GROUP_SIZE", 1, "MODEL.ENCODER.BN_GROUP_SIZE", "groups of 1 image"),
    )
    bugs = (
        (MoCoV3, "forward", "q_2 @ k_1.T", "q_2 @ k_2.T"),
        (MoCoV3, "forward", "2 * (2 * self.temperature * info_nce)", "2 * info_nce"),
        (MoCoV3, "embed", "self.compute(self.predictor, projections)", "projections"),
        (MoCoV3, "after_step", "cosine_momentum(self.momentum, progress)", "self.momentum"),
    )

    @staticmethod
    def make_model(group=4, accumulate=1):
        torch.manual_seed(0)
        norms = {"bn_group_size": group, "last_norm": True, "last_affine": False}
        encoder = SmallEncoder(group, mlp((SmallEncoder.WIDTH, 16, 8), **norms))
        settings = {"temperature": TAU, "momentum": M, "accumulate": accumulate, **PIXELS}
        model = MoCoV3(encoder=encoder, predictor=mlp((8, 16, 8), **norms), **settings)
        for p in model.encoder_k.parameters():  # as after some steps: no longer the query encoder
            p.data.mul_(1.1)
        return model.double().train()

    def check_step(self):
        """The bound on mutual information is that of the plain log loss."""
        outputs = assert_step_equals(algorithm_1, self.make_model(), random_batch(0))
        log_loss = outputs["loss_contrastive"].item() / (2 * TAU) / 2
        assert outputs["mutual_information"] == pytest.approx(math.log(8) - log_loss)
        assert_target_follows(self.make_model(), M)

    def test_the_plan_tells_negatives_and_momentum(self):
        cfg = self.tiny_config()
        cfg.MODEL.MOCO_V3.MOMENTUM = 0.99
        assert method_rows(Facts(cfg, 1000))[1:] == [
            ("negatives", "7, the other keys of the batch"),
            ("momentum", "0.99, rising to 1: keys follow over 100 steps at first"),
        ]
