"""Schedules by hand, and those of MoCo's recipes at every epoch (test_trainer.py has them in a run)."""

import math

import pytest

from moco_det.engine.schedule import check_schedule, cosine_momentum, learning_rate
from moco_det.model_zoo import get_config
from moco_det.testing.core import tiny_pretrain_config


def config(**solver):
    return tiny_pretrain_config(
        **{"LR_SCHEDULER_NAME": "CosineLR", "EPOCHS": 10, "WARMUP_EPOCHS": 2, "BASE_LR": 4.0, **solver}
    )


@pytest.mark.parametrize(
    "epoch, expected",
    [(0, 0.0), (0.5, 1.0), (1.75, 3.5), (2, 4.0), (4, 2 + math.sqrt(2)), (6, 2.0), (10, 0.0)],
)
def test_cosine_with_warm_up_changes_with_each_step(epoch, expected):
    assert learning_rate(config(), epoch) == pytest.approx(expected)


def test_cosine_ends_where_it_is_told_and_begins_with_a_groups_own():
    cfg = config(BASE_LR_END=1.0)
    assert learning_rate(cfg, 10) == pytest.approx(1.0) and learning_rate(cfg, 6) == pytest.approx(2.5)
    assert learning_rate(cfg, 2, base_lr=3.0) == 3.0 and learning_rate(cfg, 1, base_lr=3.0) == 1.5


@pytest.mark.parametrize("name", ["EpochCosineLR", "EpochMultiStepLR"])
def test_schedules_of_epochs_do_not_change_within_one(name):
    cfg = config(LR_SCHEDULER_NAME=name, WARMUP_EPOCHS=0, STEP_EPOCHS=(3, 7))
    for epoch in range(10):
        values = {
            learning_rate(cfg, epoch),
            learning_rate(cfg, epoch + 0.5),
            learning_rate(cfg, epoch + 0.999),
        }
        assert len(values) == 1


@pytest.mark.parametrize(
    ("recipe", "rate", "epochs", "milestones", "steps"),
    [
        ("Pretrain/moco_v1_R_50_200ep", 0.03, 200, (120, 160), 5_004),
        ("Pretrain/moco_v2_R_50_200ep", 0.03, 200, None, 5_004),
        ("Pretrain/moco_v2_R_50_800ep", 0.03, 800, None, 5_004),
        ("ImageNet-Classification/linear_R_50_100ep", 30.0, 100, (60, 80), 5_005),
    ],
)
def test_learning_rates_of_all_epochs_are_those_of_the_official_code(recipe, rate, epochs, milestones, steps):
    """adjust_learning_rate of main_moco.py and main_lincls.py, at the first and the last step of each epoch."""
    cfg = get_config(recipe, init=None)
    assert cfg.SOLVER.EPOCHS == epochs
    for epoch in range(epochs):
        if milestones is None:
            expected = rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        else:
            expected = rate * math.prod(0.1 if epoch >= milestone else 1.0 for milestone in milestones)
        for iteration in (epoch * steps, (epoch + 1) * steps - 1):
            assert learning_rate(cfg, iteration / steps) == pytest.approx(expected, rel=1e-14, abs=0), epoch


def test_cosine_momentum_by_hand():
    """BYOL: 1 - (1 - tau) (cos(pi k / K) + 1) / 2."""
    assert cosine_momentum(0.9, 0.0) == pytest.approx(0.9)
    assert cosine_momentum(0.9, 0.5) == pytest.approx(0.95)
    assert cosine_momentum(0.9, 2 / 3) == pytest.approx(0.975)
    assert cosine_momentum(0.9, 1.0) == 1.0


@pytest.mark.parametrize(
    "solver, message",
    [
        (
            {"WARMUP_EPOCHS": 10},
            "WARMUP_EPOCHS is 10; expected less than SOLVER.EPOCHS, which is 10",
        ),
        (
            {"BASE_LR_END": 5.0},
            "BASE_LR_END is 5.0; expected at most SOLVER.BASE_LR, which is 4.0",
        ),
    ],
)
def test_refuses_with_the_numbers(solver, message):
    with pytest.raises(ValueError, match=message):
        check_schedule(config(**solver))
