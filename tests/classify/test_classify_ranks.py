"""One recipe on one and on two processes is one algorithm."""

import contextlib
from unittest import mock

import pytest
import torch
from classify_runs import LINEAR, SUPERVISED, lines, make_trainer
from detectron2.utils import comm

from moco_det.classify import evaluation_hooks, trainer
from moco_det.data.sample_order import rank_batches
from moco_det.testing.core import run_processes
from moco_det.testing.methods import assert_one_algorithm
from moco_det.testing.planted import assert_caught

# "smaller batch": 24 images make two batches of 10, and one of 4 that is filled up to 8.
# The last: a group of batch norm is the images of both ranks.
SETTINGS = {
    "live": (*LINEAR, "CLASSIFY.MORE_LRS", "(1.0,)"),
    "cached": (*LINEAR, "CLASSIFY.FEATURES", "cached"),
    "smaller batch": (*LINEAR, "CLASSIFY.FEATURES", "cached", "SOLVER.IMS_PER_BATCH", "10"),
    "supervised": (*SUPERVISED, "SOLVER.BASE_LR", "0.002"),
    "supervised, one group": (*SUPERVISED, "CLASSIFY.BN_GROUP_SIZE", "8", "SOLVER.BASE_LR", "0.002"),
}


def record(images, weights, output, setting, bug=contextlib.nullcontext):
    """What was trained and measured, in float64."""
    torch.set_default_dtype(torch.float64)
    statistics, measure = [], evaluation_hooks.accuracy_on_images

    def noted(model, *args):
        statistics.append(model.encoder.bn1.running_var.clone())
        return measure(model, *args)

    try:
        with bug(), mock.patch.object(evaluation_hooks, "accuracy_on_images", noted):
            run = make_trainer(SETTINGS[setting], images, output, "SOLVER.EPOCHS", "1", weights=weights)
            run.run()
    finally:
        torch.set_default_dtype(torch.float32)
    comm.synchronize()
    measured = [
        {name: value for name, value in line.items() if "top" in name or name == "total_loss"}
        for line in lines(output)
    ]
    statistics = {f"running_var {number}": value for number, value in enumerate(statistics)}
    return {"measured": measured, "state": run.classifier.state_dict() | statistics}


def the_same_images_on_both():
    """A planted bug: each rank takes the block of the first."""
    wrong = lambda *args, rank, **settings: rank_batches(*args, rank=0, **settings)  # noqa: E731
    return mock.patch.object(trainer, "rank_batches", wrong)


def statistics_of_each_rank():
    """A planted bug: running statistics are not averaged before they are used."""
    return mock.patch.object(evaluation_hooks, "average_running_statistics", lambda model: None)


BUGS = {
    "the same images": ("live", the_same_images_on_both),
    "statistics": ("supervised", statistics_of_each_rank),
}


def all_runs(images, weights, output, with_bugs):
    runs = {name: record(images, weights, output / name, name) for name in SETTINGS}
    for name, (setting, bug) in BUGS.items() if with_bugs else ():
        runs[name] = record(images, weights, output / name, setting, bug)
    return runs


@pytest.fixture(scope="module")
def runs(random_set, weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return (
        all_runs(random_set, weights, folder / "1", False),
        run_processes(all_runs, 2, random_set, weights, folder / "2", True),
    )


def assert_one_classifier(one, ranks):
    assert_one_algorithm(([], one["state"]), [([], rank["state"]) for rank in ranks], state_tolerance=1e-9)
    for ours, theirs in zip(ranks[0]["measured"], one["measured"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-7)


@pytest.mark.parametrize("setting", SETTINGS)
def test_two_processes_train_what_one_trains(runs, setting):
    one, ranks = runs
    assert_one_classifier(one[setting], [rank[setting] for rank in ranks])


@pytest.mark.parametrize("bug", BUGS)
def test_the_comparison_catches(runs, bug):
    one, ranks = runs
    assert_caught(assert_one_classifier, one[BUGS[bug][0]], [rank[bug] for rank in ranks], bug=bug)
