"""What detectron2's training loop lacks: equal statistics after PreciseBN, and a resume that continues exactly."""

import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules

from moco_det.engine.hooks import is_due

logger = logging.getLogger(__name__)


class BroadcastNormStatistics(HookBase):
    """Gives every process the running statistics of the first after PreciseBN.

    PreciseBN leaves each with its own, so they would evaluate (and train on) as different models.
    """

    def __init__(self, period: int):
        """
        Args:
            period: PreciseBN's, in iterations; 0 for the end only.
        """
        self._period = period

    def after_step(self):
        if comm.get_world_size() > 1 and is_due(self.trainer, self._period):
            for module in get_bn_modules(self.trainer.model):
                for statistic in (module.running_mean, module.running_var):
                    torch.distributed.broadcast(statistic, src=0)


class EvalAtStart(HookBase):
    """Measures the model before the first iteration, as the point 0 of the curves in metrics.json."""

    def __init__(self, evaluate: Callable[[], dict]):
        """
        Args:
            evaluate: the results as detectron2's ``DefaultTrainer.test`` returns them.
        """
        self._evaluate = evaluate

    def before_train(self):
        if self.trainer.start_iter == 0 and (results := self._evaluate()):
            for name, value in flatten_results_dict(results).items():
                # Nothing detected is an AP of 0, for which detectron2 says NaN; so it does for a class ("AP-name")
                # without any ground truth, which stays NaN.
                known = value if math.isfinite(value) or "AP-" in name else 0.0
                self.trainer.storage.put_scalar(name, known, smoothing_hint=False)


class RunState(HookBase):
    """Keeps in each checkpoint what a resumed run needs to continue as if it had not stopped.

    That is: each process's random generators, the seed that orders the data, the seconds spent so far, and the
    sha256 of the weights that the run started from.
    """

    def __init__(self, seed: int, checkpoint_period: int):
        """
        Args:
            seed: cfg.SEED, which orders the data.
            checkpoint_period: iterations between two checkpoints.
        """
        self.seed, self._period = seed, checkpoint_period
        self.weights_sha256 = ""
        self._start, self._seconds_before = time.perf_counter(), 0.0
        self._of_ranks: list[dict[str, Any]] = []

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its resumes."""
        return self._seconds_before + time.perf_counter() - self._start

    def before_train(self):
        if self.trainer.start_iter == 0:
            return
        if len(self._of_ranks) == comm.get_world_size():
            set_generators(self._of_ranks[comm.get_rank()])
        else:
            logger.warning(
                f"The checkpoint holds the random generators of {len(self._of_ranks)} processes, this run has "
                f"{comm.get_world_size()}: they start again, and the run continues with other random numbers"
            )

    def after_step(self):
        # All processes take part; the checkpointer, which comes next, runs on the first only.
        if is_due(self.trainer, self._period):
            self.gather()

    def gather(self) -> None:
        """Collect the generators of all processes, which all call this."""
        self._of_ranks = comm.all_gather(get_generators())

    def state_dict(self):
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "weights_sha256": self.weights_sha256,
            "generators": self._of_ranks,
        }

    def load_state_dict(self, state: dict[str, Any]):
        if self.seed != state["seed"]:
            raise ValueError(
                f"--resume: SEED is {self.seed}, but the checkpoint's run has {state['seed']}, which orders its "
                f"data; leave SEED out or give SEED {state['seed']}"
            )
        self.weights_sha256 = state["weights_sha256"]
        self._seconds_before, self._of_ranks = state["seconds"], state["generators"]


def get_generators() -> dict[str, Any]:
    """The state of this process's generators, as plain values and tensors (readable with ``weights_only``)."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_generators(state: dict[str, Any]) -> None:
    """Undo every random number since :func:`get_generators` gave ``state``."""
    name, keys, position, has_gauss, gauss = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def same_generators() -> Iterator[None]:
    """Leave the generators as they were: what runs inside takes none of the training's random numbers."""
    state = get_generators()
    try:
        yield
    finally:
        set_generators(state)
