"""DINO: what every method passes; its steps against Algorithm 1 by hand, its last layer, what does not decay."""

import copy

import pytest
import torch
from test_dino_losses import T_S, T_T, loss_by_loops

from moco_det.testing.core import REPOSITORY
from moco_det.testing.methods import MethodSuite, SmallEncoder, random_multi_crop_batch, take_steps
from moco_dino import add_dino_config, dino, losses
from moco_dino.dino import DINO
from moco_dino.head import DINOHead

BOTTLENECK, OUT = 5, 7


def make_model(group=4, accumulate=1):
    torch.manual_seed(0)
    settings = {
        **{"out_dim": OUT, "momentum": 0.9, "center_momentum": 0.8, "student_temperature": T_S},
        **{"teacher_temperature": (T_T, T_T), "teacher_warmup_epochs": 0, "freeze_last_layer_epochs": 1},
        **{"pixel_mean": [120.0] * 3, "pixel_std": [60.0] * 3, "accumulate": accumulate},
    }
    encoder = SmallEncoder(group, DINOHead(SmallEncoder.WIDTH, 8, BOTTLENECK, OUT, group))
    return DINO(encoder=encoder, **settings).double().train()


def outputs_by_hand(encoder, images):
    encoder = copy.deepcopy(encoder)
    z = encoder((images.double() - 120) / 60)
    weight = encoder.fc.last_layer.weight
    return (z / z.norm(dim=1, keepdim=True)) @ (weight / weight.norm(dim=1, keepdim=True)).T


def check_steps():
    """The loss, the center and the teacher after it, for three steps with a student that moves."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameter_groups(), lr=0.5)
    center = torch.zeros(OUT, dtype=torch.float64)
    for iteration in range(3):
        batch = random_multi_crop_batch(iteration)
        crops = [batch["query"], batch["key"], *batch["small"].unbind(1)]
        teacher = [outputs_by_hand(model.encoder_k, crop).detach() for crop in crops[:2]]
        student = [outputs_by_hand(model.encoder_q, crop).detach() for crop in crops]
        expected = loss_by_loops(student, teacher, center)
        loss = model({**batch, "progress": 0.0})["loss_distillation"]
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-10)
        center = 0.8 * center + 0.2 * torch.cat(teacher).mean(dim=0)
        torch.testing.assert_close(model.center, center)

        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None for p in model.encoder_k.parameters())
        model.after_backward(iteration, 0.5)
        optimizer.step()
        before = [p.clone() for p in model.encoder_k.parameters()]
        model.after_step(0.5)  # half of the cosine: the momentum is half of the way to 1
        pairs = zip(before, model.encoder_q.parameters(), model.encoder_k.parameters(), strict=True)
        for old, student_weight, new in pairs:
            torch.testing.assert_close(new, 0.95 * old + 0.05 * student_weight)


def test_the_last_layer_is_frozen_in_the_first_epoch():
    for epoch, moved in ((0, False), (1, True)):
        model = make_model()
        start = model.encoder_q.fc.last_layer.weight.detach().clone()
        take_steps(
            model, lr=0.5, batch=lambda iteration, epoch=epoch: random_multi_crop_batch(iteration, epoch)
        )
        assert torch.equal(model.encoder_q.fc.last_layer.weight, start) != moved


def test_the_length_of_the_last_layers_rows_says_nothing():
    model = make_model()
    expected = float(model(random_multi_crop_batch(0))["loss_distillation"].detach())
    model = make_model()
    model.encoder_q.fc.last_layer.weight.data *= torch.linspace(0.5, 3, OUT)[:, None]
    assert float(model(random_multi_crop_batch(0))["loss_distillation"].detach()) == pytest.approx(
        expected, rel=1e-12
    )


class TestDINO(MethodSuite):
    add_config = staticmethod(add_dino_config)
    recipes = REPOSITORY / "projects/DINO/configs"
    # The authors' command for ResNet-50 (README of the official code), and the defaults of its arguments.
    published = {
        "dino_R_50_100ep": {
            **{"MODEL.DINO.OUT_DIM": 65536, "MODEL.DINO.HIDDEN_DIM": 2048, "MODEL.DINO.BOTTLENECK_DIM": 256},
            **{"MODEL.DINO.HEAD_NORM": False, "MODEL.DINO.STUDENT_TEMPERATURE": 0.1},
            **{"MODEL.DINO.TEACHER_TEMPERATURE": 0.04, "MODEL.DINO.MOMENTUM": 0.996},
            **{"MODEL.DINO.CENTER_MOMENTUM": 0.9, "MODEL.DINO.FREEZE_LAST_LAYER_EPOCHS": 1},
            **{"INPUT.VIEWS.SMALL_CROPS": 8, "INPUT.VIEWS.SMALL_SIZE": 96, "INPUT.VIEWS.RECIPE": "byol"},
            **{"INPUT.VIEWS.CROP_SCALE": (0.14, 1.0), "INPUT.VIEWS.SMALL_CROP_SCALE": (0.05, 0.14)},
            **{"SOLVER.IMS_PER_BATCH": 512, "SOLVER.BASE_LR": DINO.linear_rule[1] * 512 / 256},
            "SOLVER.WEIGHT_DECAY": 1e-4,
        }
    }
    tiny = (
        "toy/dino_R_18",
        {
            **{"MODEL.DINO.HIDDEN_DIM": 16, "MODEL.DINO.BOTTLENECK_DIM": 8, "MODEL.DINO.OUT_DIM": 12},
            **{"MODEL.DINO.TEACHER_WARMUP_EPOCHS": 1, "MODEL.DINO.TEACHER_TEMPERATURE": 0.07},
            "INPUT.VIEWS.SMALL_SIZE": 16,
        },
    )
    refused = (
        ("MODEL.DINO.STUDENT_TEMPERATURE", 0.0),
        ("MODEL.DINO.MOMENTUM", 1.0),
        ("MODEL.DINO.CENTER_MOMENTUM", -0.1),
    )
    batch = staticmethod(random_multi_crop_batch)
    steps = 3
    make_model = staticmethod(make_model)
    bugs = (
        (dino, "distillation", "output.detach() - center", "output.detach() + center"),
        (dino, "moved_center", "1 - momentum", "momentum"),
        (losses, "swapped_cross_entropy", "if v != i", "if v > i"),
        (DINO, "forward", "self.embed(self.encoder_k, view)", "self.embed(self.encoder_q, view)"),
        (DINO, "after_step", "cosine_momentum(self.momentum, progress)", "self.momentum"),
    )

    def check_step(self):
        check_steps()

    def test_some_weights_do_not_decay(self):
        trainer = self.whole_run()
        groups = trainer.optimizer.param_groups
        assert [group["weight_decay"] for group in groups] == [trainer.cfg.SOLVER.WEIGHT_DECAY, 0.0]
        assert all(p.ndim == 1 for p in groups[1]["params"])
