"""One recipe on 1, 2 and 4 processes is one algorithm; and each comparison catches a planted bug.

DESIGN: views, permutations, groups and data order bit-equal; losses within 1e-9 over 20 steps in float64, and
within 1e-5 relative at the first step in float32 (two float32 runs that differ in rounding part soon).
"""

import contextlib
import os
import shutil
import signal
from unittest import mock

import pytest
import torch
from detectron2.utils import comm

from moco_det.engine import checkpoint
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.modeling import grouped_batch_norm
from moco_det.modeling.collectives import local_block
from moco_det.pretrain.moco import dictionaries, shuffled_keys
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import run_processes, tiny_pretrain_config, write_random_images
from moco_det.testing.methods import assert_one_algorithm
from moco_det.testing.planted import assert_caught
from moco_det.utils.seeding import torch_generator

# Batch norm of 16 images a batch, and steps: two ranks hold one group of 8 and four ranks half a one; ranks hold
# several groups of 4; one group over all.
SETTINGS = {"groups of 8": ("BN", 8, 20), "groups of 4": ("BN", 4, 5), "SyncBN": ("SyncBN", 8, 5)}


def record(
    images, output, setting, steps=None, dtype=torch.float64, bug=contextlib.nullcontext, resume=False
):
    """Train some steps on the ranks there are; what a rank drew, dealt out, computed and kept.

    Views and learning rate are such that rounding grows slowly: batch norm over few values makes it explode.
    """
    cfg = tiny_pretrain_config(output, EPOCHS=10, CHECKPOINT_EPOCHS=100, IMS_PER_BATCH=16, BASE_LR=0.003)
    cfg.MODEL.ENCODER.NORM, cfg.MODEL.ENCODER.BN_GROUP_SIZE, usual = SETTINGS[setting]
    cfg.MODEL.MOCO.QUEUE_SIZE = 48
    cfg.INPUT.VIEWS.SIZE = 48
    cfg.DATASETS.IMAGES = str(images)
    torch.set_default_dtype(dtype)
    try:
        with bug():
            prepare_run_folder(cfg, resume)
            trainer = PretrainTrainer(cfg)
            if resume:
                trainer.resume()
            return run_and_record(trainer, steps or usual)
    finally:
        torch.set_default_dtype(torch.float32)


def run_and_record(trainer, steps):
    seen = {name: [] for name in ("query", "dealt", "queue", "loss")}
    trainer.method.encoder_k.register_forward_pre_hook(
        lambda _, inputs: seen["dealt"].append(inputs[0].clone())
    )
    run_step = trainer.run_step

    def recorded_step():
        seen["queue"].append(trainer.method.dictionary.keys.clone())
        run_step()
        seen["query"].append(trainer.batch["query"])
        seen["loss"].append(float(trainer.outputs["loss_contrastive"]))

    trainer.run_step = recorded_step
    trainer.max_iter = trainer.start_iter + steps
    trainer.run()
    return {**seen, "state": trainer.method.state_dict()}


def assert_same_draws_and_algorithm(one, ranks, tolerance=1e-9):
    """The random numbers bit for bit, the queue equal on all ranks, losses and state to rounding.

    Returns:
        the largest difference of a step's loss.
    """
    for step in range(len(one["loss"])):
        for name in ("query", "dealt"):
            assert torch.equal(torch.cat([rank[name][step] for rank in ranks]), one[name][step]), (name, step)
        for rank in ranks:
            assert torch.equal(rank["queue"][step], ranks[0]["queue"][step]), step
    runs = [(run["loss"], run["state"]) for run in (one, *ranks)]
    return assert_one_algorithm(runs[0], runs[1:], tolerance, state_tolerance=1e-7)


# ---- Planted bugs: what the comparison must catch --------------------------------------------------


def keys_as_they_arrive():
    """Keys in the order of their senders, instead of each at its place of the permutation."""
    right = shuffled_keys.shuffle

    def wrong(images, permutation):
        senders = local_block(permutation) // len(images)
        return right(images, permutation)[senders.argsort(stable=True)]

    return mock.patch.object(shuffled_keys, "shuffle", wrong)


def queue_of_its_own():
    wrong = lambda seed, *key: torch_generator(seed + comm.get_rank(), *key)  # noqa: E731
    return mock.patch.object(dictionaries, "torch_generator", wrong)


def statistics_of_rank_0_only():
    return mock.patch.object(checkpoint, "average_running_statistics", lambda model: None)


def groups_within_a_rank():
    def wrong(self, x):
        self.group_size = x.shape[0]
        return self.forward(x)

    return mock.patch.object(grouped_batch_norm.GroupedBatchNorm2d, "_group_over_ranks", wrong)


BUGS = {
    "keys as they arrive": ("groups of 8", keys_as_they_arrive),
    "unbroadcast queue": ("groups of 8", queue_of_its_own),
    "rank-0-only statistics": ("groups of 8", statistics_of_rank_0_only),
    "groups within a rank": ("SyncBN", groups_within_a_rank),
}


# ---- The runs ------------------------------------------------------------------------------------


def _all_runs(images, output, with_bugs):
    """All runs in one start of the processes, which takes longer than the runs."""
    runs = {setting: record(images, f"{output}/{setting}", setting) for setting in SETTINGS}
    runs["float32"] = record(images, f"{output}/float32", "groups of 8", steps=1, dtype=torch.float32)
    for name, (setting, bug) in BUGS.items() if with_bugs else ():
        runs[name] = record(images, f"{output}/{name}", setting, steps=2, bug=bug)
    return runs


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_random_images(folder, 48)
    return folder


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """The records of each rank, by number of ranks."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "folder": folder,
        1: [_all_runs(images, folder / "1", False)],
        2: run_processes(_all_runs, 2, images, folder / "2", True),
        4: run_processes(_all_runs, 4, images, folder / "4", False),
    }


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("setting", SETTINGS)
def test_ranks_train_what_one_trains(runs, ranks, setting):
    largest = assert_same_draws_and_algorithm(runs[1][0][setting], [rank[setting] for rank in runs[ranks]])
    print(f"largest difference of a loss, {ranks} ranks, {setting}: {largest:.1e}")


@pytest.mark.parametrize("ranks", [2, 4])
def test_first_loss_in_float32(runs, ranks):
    mean = sum(rank["float32"]["loss"][0] for rank in runs[ranks]) / ranks
    difference = abs(mean / runs[1][0]["float32"]["loss"][0] - 1)
    print(f"relative difference of the first loss in float32, {ranks} ranks: {difference:.1e}")
    assert difference <= 1e-5


@pytest.mark.parametrize("bug", BUGS)
def test_the_comparison_catches(runs, images, tmp_path, bug):
    one = record(images, tmp_path, BUGS[bug][0], steps=2)
    assert_caught(assert_same_draws_and_algorithm, one, [rank[bug] for rank in runs[2]], bug=bug)


def test_the_start_of_the_queue_is_equal_on_all_ranks(runs):
    starts = [rank["groups of 8"]["queue"][0] for count in (1, 2, 4) for rank in runs[count]]
    assert all(torch.equal(start, starts[0]) for start in starts)


def test_another_number_of_ranks_continues_with_the_same_draws(runs, images, tmp_path):
    """Two ranks stop after 5 steps, one continues for 3: the losses of a run that was never interrupted."""
    cut = tmp_path / "cut"
    shutil.copytree(runs["folder"] / "2/groups of 4", cut)
    rest = record(images, cut, "groups of 4", steps=3, resume=True)
    whole = record(images, tmp_path / "whole", "groups of 4", steps=8)
    for name in ("query", "dealt"):
        assert all(torch.equal(*pair) for pair in zip(rest[name], whole[name][5:], strict=True))
    largest = max(abs(ours - theirs) for ours, theirs in zip(rest["loss"], whole["loss"][5:], strict=True))
    print(f"largest difference of a loss, 2 ranks continued by 1: {largest:.1e}")
    assert largest <= 1e-9
    assert "processes 2 -> 1" in (cut / "log.txt").read_text()


# ---- A stop ----------------------------------------------------------------------------------------


def _run_of_three_steps(images, output, *, resume=False, stop_in=None):
    """One epoch of batches over both ranks; its last checkpoint. Rank 1 may be asked to stop in a step."""
    cfg = tiny_pretrain_config(output, EPOCHS=1, IMS_PER_BATCH=16)
    cfg.MODEL.MOCO.QUEUE_SIZE, cfg.DATASETS.IMAGES = 48, str(images)
    prepare_run_folder(cfg, resume)
    trainer = PretrainTrainer(cfg)
    if resume:
        trainer.resume()
    run_step = trainer.run_step

    def step_and_signal():
        run_step()
        if trainer.iter == stop_in and comm.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    trainer.run_step = step_and_signal
    with contextlib.suppress(SystemExit) if stop_in is not None else contextlib.nullcontext():
        trainer.run()
    return trainer.method.state_dict()


def _alone_and_stopped(images, folder):
    whole = _run_of_three_steps(images, f"{folder}/whole")
    _run_of_three_steps(images, f"{folder}/cut", stop_in=1)
    left = sorted(os.listdir(f"{folder}/cut"))
    return whole, _run_of_three_steps(images, f"{folder}/cut", resume=True), left


def test_two_ranks_that_are_stopped_go_on_bit_for_bit(images, tmp_path):
    """Running statistics differ between ranks until a checkpoint averages them: a stop must not."""
    for whole, continued, left in run_processes(_alone_and_stopped, 2, images, tmp_path):
        assert "model_0000001.pth" in left and "model_final.pth" not in left
        assert [name for name in whole if not torch.equal(whole[name], continued[name])] == []
