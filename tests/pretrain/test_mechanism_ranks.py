"""The mechanisms on two processes are those on one; and the comparison catches planted bugs."""

import contextlib
from unittest import mock

import pytest
from detectron2.utils import comm
from mechanism_examples import SETTINGS, make_batch, make_model

from moco_det.modeling import collectives
from moco_det.pretrain.moco import dictionaries
from moco_det.pretrain.moco.dictionaries import MemoryBank
from moco_det.testing.core import run_processes
from moco_det.testing.methods import assert_one_algorithm, take_steps
from moco_det.testing.planted import assert_caught
from moco_det.utils.seeding import torch_generator


def train(setting, bug=contextlib.nullcontext):
    model = make_model(setting)
    with bug():
        return take_steps(model, batch=make_batch)


def gradients_averaged_twice():
    plain = collectives._GatherWithGradient.backward
    wrong = staticmethod(lambda ctx, gradient: plain(ctx, gradient) / comm.get_world_size())
    return mock.patch.object(collectives._GatherWithGradient, "backward", wrong)


def gradients_of_the_own_rank_only():
    def wrong(ctx, gradient):
        return collectives.local_block(gradient)

    return mock.patch.object(collectives._GatherWithGradient, "backward", staticmethod(wrong))


def negatives_of_its_own():
    wrong = lambda seed, *key: torch_generator(seed + comm.get_rank(), *key)  # noqa: E731
    return mock.patch.object(dictionaries, "torch_generator", wrong)


def bank_that_learns_from_its_own_rank():
    plain = MemoryBank.update

    def wrong(self, *of_all_ranks):
        plain(self, *map(collectives.local_block, of_all_ranks))

    return mock.patch.object(MemoryBank, "update", wrong)


RANK_BUGS = {
    "gradients averaged twice": ("two encoders", gradients_averaged_twice),
    "gradients of the own rank only": ("two encoders", gradients_of_the_own_rank_only),
    "negatives of its own": ("bank", negatives_of_its_own),
    "bank of its own": ("bank", bank_that_learns_from_its_own_rank),
}


def _all_runs():
    runs = {setting: train(setting) for setting in SETTINGS}
    return runs | {name: train(setting, bug) for name, (setting, bug) in RANK_BUGS.items()}


@pytest.fixture(scope="module")
def two_ranks():
    return run_processes(_all_runs, 2)


@pytest.mark.parametrize("setting", SETTINGS)
def test_two_ranks_train_what_one_trains(two_ranks, setting):
    assert_one_algorithm(train(setting), [rank[setting] for rank in two_ranks])


@pytest.mark.parametrize("bug", RANK_BUGS)
def test_the_comparison_of_ranks_catches(two_ranks, bug):
    one = train(RANK_BUGS[bug][0])
    assert_caught(assert_one_algorithm, one, [rank[bug] for rank in two_ranks], bug=bug)
