"""DINO's steps: against Algorithm 1 by hand, over two processes, in micro-batches, resumed, converted."""

import copy

import pytest
import torch
from test_dino_losses import T_S, T_T, loss_by_loops

from moco_det.config import get_cfg, merge_config
from moco_det.convert.command import main as convert
from moco_det.testing.core import REPOSITORY, run_processes, write_random_images
from moco_det.testing.methods import (
    SmallEncoder,
    assert_one_algorithm,
    assert_resumes,
    random_multi_crop_batch,
    take_steps,
    tiny_method_config,
    train,
)
from moco_dino import add_dino_config
from moco_dino.dino import DINO
from moco_dino.head import DINOHead

RECIPES = REPOSITORY / "projects/DINO/configs"
BOTTLENECK, OUT = 5, 7


def make_model(group=4, **changes):
    torch.manual_seed(0)
    settings = {
        **{"out_dim": OUT, "momentum": 0.9, "center_momentum": 0.8, "student_temperature": T_S},
        **{"teacher_temperature": (T_T, T_T), "teacher_warmup_epochs": 0, "freeze_last_layer_epochs": 1},
        **{"pixel_mean": [120.0] * 3, "pixel_std": [60.0] * 3},
    }
    encoder = SmallEncoder(group, DINOHead(SmallEncoder.WIDTH, 8, BOTTLENECK, OUT, group))
    return DINO(encoder=encoder, **{**settings, **changes}).double().train()


def outputs_by_hand(encoder, images):
    encoder = copy.deepcopy(encoder)
    z = encoder((images.double() - 120) / 60)
    weight = encoder.fc.last_layer.weight
    return (z / z.norm(dim=1, keepdim=True)) @ (weight / weight.norm(dim=1, keepdim=True)).T


def test_steps_are_those_of_algorithm_1():
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


def test_micro_batches_make_the_step_of_the_whole_batch():
    whole, parts = (
        take_steps(make_model(accumulate=count), steps=3, batch=random_multi_crop_batch) for count in (1, 2)
    )
    assert_one_algorithm(whole, [parts])


def steps_of_this_rank(group):
    return take_steps(make_model(group), steps=3, batch=random_multi_crop_batch)


def test_two_processes_train_what_one_trains():
    one = take_steps(make_model(8), steps=3, batch=random_multi_crop_batch)
    assert_one_algorithm(one, run_processes(steps_of_this_rank, 2, 8))


def tiny_config(output="", **solver):
    cfg = tiny_method_config(RECIPES / "toy/dino_R_18.yaml", add_dino_config, output, **solver)
    dino = cfg.MODEL.DINO
    dino.HIDDEN_DIM, dino.BOTTLENECK_DIM, dino.OUT_DIM = 16, 8, 12
    dino.TEACHER_WARMUP_EPOCHS, dino.TEACHER_TEMPERATURE = 1, 0.07
    cfg.INPUT.VIEWS.SMALL_SIZE = 16
    return cfg


@pytest.mark.stress
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    write_random_images(tmp_path / "images", 24)
    assert_resumes(tiny_config, tmp_path / "images", tmp_path)


def test_the_teacher_converts_and_some_weights_do_not_decay(tmp_path, capsys):
    write_random_images(tmp_path / "images", 24)
    trainer = train(tiny_config(tmp_path / "run", EPOCHS=1), tmp_path / "images")
    convert([str(tmp_path / "run/model_final.pth"), str(tmp_path / "backbone.pkl")])
    assert "key encoder" in capsys.readouterr().out
    groups = trainer.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [trainer.cfg.SOLVER.WEIGHT_DECAY, 0.0]
    assert all(p.ndim == 1 for p in groups[1]["params"])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("STUDENT_TEMPERATURE", 0.0, "MODEL.DINO.STUDENT_TEMPERATURE is 0.0; expected above 0"),
        ("MOMENTUM", 1.0, "MODEL.DINO.MOMENTUM is 1.0; expected 0 or more, below 1"),
        ("CENTER_MOMENTUM", -0.1, "MODEL.DINO.CENTER_MOMENTUM is -0.1"),
    ],
)
def test_refuses_what_cannot_be(key, value, message):
    cfg = tiny_config()
    cfg.MODEL.DINO[key] = value
    with pytest.raises(ValueError, match=message):
        DINO.check_config(cfg, ranks=1)


def test_the_recipe_has_the_authors_values():
    """Their command for ResNet-50 (README of the official code), and the defaults of its arguments."""
    cfg = get_cfg()
    add_dino_config(cfg)
    merge_config(cfg, str(RECIPES / "dino_R_50_100ep.yaml"), [])
    dino, views, solver = cfg.MODEL.DINO, cfg.INPUT.VIEWS, cfg.SOLVER
    assert (dino.OUT_DIM, dino.HIDDEN_DIM, dino.BOTTLENECK_DIM, dino.HEAD_NORM) == (65536, 2048, 256, False)
    assert (dino.STUDENT_TEMPERATURE, dino.TEACHER_TEMPERATURE, dino.MOMENTUM) == (0.1, 0.04, 0.996)
    assert (dino.CENTER_MOMENTUM, dino.FREEZE_LAST_LAYER_EPOCHS) == (0.9, 1)
    assert (views.SMALL_CROPS, views.SMALL_SIZE, views.RECIPE) == (8, 96, "byol")
    assert tuple(views.CROP_SCALE) == (0.14, 1.0) and tuple(views.SMALL_CROP_SCALE) == (0.05, 0.14)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (512, 0.06, 1e-4)
    assert solver.BASE_LR == DINO.linear_rule[1] * solver.IMS_PER_BATCH / 256
    DINO.check_config(cfg, ranks=8)
