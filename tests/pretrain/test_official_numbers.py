"""MoCo v1 and v2 against losses and weights that the official code computed from the same inputs.

``data/official_moco.json`` says how its inputs are made, so that only results are stored.
"""

import contextlib
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from moco_det.modeling.collectives import local_block
from moco_det.modeling.grouped_batch_norm import average_running_statistics
from moco_det.modeling.momentum_encoder import momentum_update
from moco_det.pretrain import trainer
from moco_det.pretrain.method import PretrainMethod
from moco_det.pretrain.moco import model as moco
from moco_det.pretrain.moco import shuffled_keys
from moco_det.pretrain.moco.model import MoCo
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import run_processes, tiny_pretrain_config

OFFICIAL = json.loads((Path(__file__).parent / "data/official_moco.json").read_text())["runs"]
STEPS, BATCH, DIM, QUEUE, TOLERANCE = 12, 16, 128, 64, 1e-9


def official_config(version: str, group_size: int, accumulate: int):
    cfg = tiny_pretrain_config(
        EPOCHS=1, IMS_PER_BATCH=BATCH, BASE_LR=0.03, WEIGHT_DECAY=1e-4, ACCUMULATE=accumulate
    )
    cfg.MODEL.MOCO.MLP, cfg.MODEL.MOCO.TEMPERATURE = {"v1": (False, 0.07), "v2": (True, 0.2)}[version]
    cfg.MODEL.MOCO.DIM, cfg.MODEL.MOCO.QUEUE_SIZE, cfg.MODEL.MOCO.MOMENTUM = DIM, QUEUE, 0.999
    cfg.MODEL.ENCODER.BN_GROUP_SIZE = group_size
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 3, [1.0] * 3  # the images are normalized already
    return cfg


def set_inputs(model) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Start the model as the file says; the images (step, view, image, …) and each step's permutation."""
    random = np.random.RandomState(0)
    start = model.encoder_q.state_dict()
    for name, tensor in start.items():
        shape = tuple(tensor.shape)
        if tensor.ndim == 4:
            value = random.standard_normal(shape) * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        elif tensor.ndim == 2:
            value = random.uniform(-1, 1, shape) / np.sqrt(shape[1])
        else:
            value = np.full(shape, float(name.endswith("running_var") or (tensor.ndim and "weight" in name)))
        tensor.copy_(torch.from_numpy(np.asarray(value)))
    model.encoder_k.load_state_dict(start)
    queue = random.standard_normal((DIM, QUEUE))
    model.dictionary.keys.copy_(torch.from_numpy(queue / np.linalg.norm(queue, axis=0)))
    images = torch.from_numpy(random.standard_normal((STEPS, 2, BATCH, 3, 32, 32)))
    return images, [torch.from_numpy(random.permutation(BATCH)) for _ in range(STEPS)]


def train(version: str, group_size: int, accumulate: int = 1, steps: int = STEPS, bug=contextlib.nullcontext):
    """Steps of the trainer on the ranks there are.

    Returns:
        this rank's loss at each step, the state that a checkpoint would hold, and this rank's state before its
        running statistics were averaged.
    """
    torch.set_default_dtype(torch.float64)
    try:
        with bug(), mock.patch.object(trainer, "save_sample_views"):
            run = PretrainTrainer(
                official_config(version, group_size, accumulate), paths=list(map(str, range(STEPS * BATCH)))
            )
            images, permutations = set_inputs(run.method)
            run.batches = (
                {"query": local_block(q), "key": local_block(k), "epoch": 0, "index": None} for q, k in images
            )
            losses = []
            for run.iter in range(steps):
                draw = lambda *_, **__: permutations[run.iter]  # noqa: E731
                with mock.patch.object(torch, "randperm", draw):
                    run.run_step()
                losses.append(float(run.outputs["loss_contrastive"]))
        own = {name: value.clone() for name, value in run.method.state_dict().items()}
        average_running_statistics(run.method)
        return losses, run.method.state_dict(), own
    finally:
        torch.set_default_dtype(torch.float32)


def digest(tensor: torch.Tensor) -> list[float]:
    return [float(tensor.norm()), *tensor.flatten()[:3].tolist()]


def assert_official_losses(run: str, losses: list[float]) -> None:
    assert losses == pytest.approx(OFFICIAL[run]["losses"][: len(losses)], rel=0, abs=TOLERANCE)


def assert_official(run: str, losses: list[float], state: dict, statistics: str = "mean_of_ranks") -> None:
    official = OFFICIAL[run]
    assert_official_losses(run, losses)
    assert state["dictionary.pointer"] == 0
    tensors = {"dictionary.keys": official["queue"], **official["parameters"]}
    for kind, numbers in (("weights and queue", tensors), (statistics, official[f"statistics_{statistics}"])):
        found = {name: digest(state[name]) for name in numbers}
        print(f"{run}, {kind}: largest difference {largest_difference(found, numbers):.1e}")
        for name, expected in numbers.items():
            assert found[name] == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE), name
    print(f"{run}, losses: largest difference {largest_difference({0: losses}, {0: official['losses']}):.1e}")


def largest_difference(found: dict, expected: dict) -> float:
    return max(abs(a - b) for name in expected for a, b in zip(found[name], expected[name], strict=True))


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    "world, group_size, accumulate", [(1, 16, 1), (2, 8, 1), (2, 8, 2)], ids=["one", "groups", "accumulated"]
)
def test_one_process_computes_the_official_numbers(version, world, group_size, accumulate):
    losses, state, _ = train(version, group_size, accumulate)
    assert_official(f"{version} world {world}", losses, state)


def _both_versions():
    return {version: train(version, 8) for version in ("v1", "v2")}


@pytest.fixture(scope="module")
def two_processes():
    return run_processes(_both_versions, 2)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_two_processes_compute_the_official_numbers(two_processes, version):
    ranks = [rank[version] for rank in two_processes]
    losses = [sum(step) / 2 for step in zip(*(losses for losses, _, _ in ranks), strict=True)]
    for _, state, _ in ranks:
        assert_official(f"{version} world 2", losses, state)
    # An official checkpoint has the statistics of rank 0; ours has the mean, which differs by more than rounding.
    rank_0 = ranks[0][2]
    assert_official(f"{version} world 2", losses, rank_0, "of_rank_0")
    with pytest.raises(AssertionError):
        assert_official(f"{version} world 2", losses, rank_0)


# ---- Planted bugs ----------------------------------------------------------------------------------


@contextlib.contextmanager
def momentum_update_after_the_keys():
    plain = MoCo.embed_keys

    def wrong(self, encoder, batch):
        keys = plain(self, encoder, batch)
        momentum_update(self.encoder_k, self.encoder_q, self.momentum)
        return keys

    with (
        mock.patch.object(moco, "momentum_update", lambda *_: None),
        mock.patch.object(MoCo, "embed_keys", wrong),
    ):
        yield


def weight_decay_without_batch_norm():
    plain = PretrainMethod.parameter_groups

    def wrong(self):
        norms = {
            p
            for module in self.modules()
            if "BatchNorm" in type(module).__name__
            for p in module.parameters()
        }
        (group,) = plain(self)
        decayed, others = ([p for p in group["params"] if (p in norms) == normed] for normed in (False, True))
        return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]

    return mock.patch.object(PretrainMethod, "parameter_groups", wrong)


def no_shuffle():
    plain = shuffled_keys.draw_permutation
    return mock.patch.object(
        shuffled_keys, "draw_permutation", lambda count, shuffled, *key: plain(count, False, *key)
    )


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("bug", [momentum_update_after_the_keys, weight_decay_without_batch_norm, no_shuffle])
def test_the_numbers_catch_a_planted_bug(version, bug):
    losses, _, _ = train(version, 8, steps=4, bug=bug)
    with pytest.raises(AssertionError):
        assert_official_losses(f"{version} world 2", losses)
