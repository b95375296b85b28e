"""What happens around the steps of the stages that train by epochs: learning rate, statistics, log."""

import logging
import math
import time
from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage

from moco_det.engine.checkpoint import CONTINUE_LOWER
from moco_det.engine.schedule import learning_rate

logger = logging.getLogger(__name__)


class LearningRate(HookBase):
    """Sets the learning rate before each step; a function of the iteration, so it has no state.

    A parameter group with a ``base_lr`` has a schedule of its own that begins with it; one with ``decay_lr`` False
    keeps that, or SOLVER.BASE_LR.
    """

    def __init__(self, cfg, optimizer, steps_per_epoch: int):
        self.cfg, self.optimizer, self.steps_per_epoch = cfg, optimizer, steps_per_epoch

    def before_step(self):
        epoch = self.trainer.iter / self.steps_per_epoch
        for group in self.optimizer.param_groups:
            if group.get("decay_lr", True):
                group["lr"] = learning_rate(self.cfg, epoch, group.get("base_lr"))
            else:
                group["lr"] = group.get("base_lr", self.cfg.SOLVER.BASE_LR)


class StepStatistics(HookBase):
    """Puts the mean of the steps' statistics into the event storage every ``period`` steps.

    Between two of them nothing is read from the device, so the GPU is never waited for.
    """

    def __init__(self, period: int, steps_per_epoch: int, images_per_batch: int):
        self.period, self.steps_per_epoch, self.images_per_batch = period, steps_per_epoch, images_per_batch
        self.steps = 0

    def before_step(self):
        if self.steps == 0:
            self.sums, self.waited, self.since = {}, 0.0, time.perf_counter()

    def after_step(self):
        for name, value in self.trainer.outputs.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.steps += 1
        self.waited += self.trainer.data_seconds
        if is_due(self.trainer, self.period):
            self.flush()

    def flush(self) -> None:
        """Store the mean of the steps since the last time, on all ranks at once."""
        if self.steps:
            means = comm.reduce_dict({name: total / self.steps for name, total in self.sums.items()})
            if comm.is_main_process():
                self._put({name: float(value) for name, value in means.items()})
            self.steps = 0

    def _put(self, values: dict[str, float]):
        seconds = time.perf_counter() - self.since
        values["total_loss"] = sum(value for name, value in values.items() if name.startswith("loss"))
        if not math.isfinite(values["total_loss"]):
            raise FloatingPointError(
                f"the loss is {values['total_loss']} between steps {self.trainer.iter + 2 - self.steps} and "
                f"{self.trainer.iter + 1}; {CONTINUE_LOWER}"
            )
        values["seconds_per_step"] = seconds / self.steps
        values["images_per_second"] = self.steps * self.images_per_batch / seconds
        values["data_wait"] = self.waited / seconds
        if self.trainer.scaler.is_enabled():
            values["loss_scale"] = self.trainer.scaler.get_scale()
        values["lr"] = self.trainer.optimizer.param_groups[0]["lr"]
        values["epoch"] = (self.trainer.iter + 1) / self.steps_per_epoch
        self.trainer.storage.put_scalars(smoothing_hint=False, **values)


def is_due(trainer, period: int) -> bool:
    """Whether the step just done ends a period, or the run."""
    done = trainer.iter + 1
    return done % period == 0 or done == trainer.max_iter


class LogWriter(EventWriter):
    """Writes a line about the last steps into the log."""

    def __init__(self, describe: Callable[[dict[str, float], int], str]):
        """
        Args:
            describe: makes the line of the newest values and the number of steps done.
        """
        self.describe = describe
        self.written = -1

    def write(self):
        storage = get_event_storage()
        latest = storage.latest()
        iteration = latest["total_loss"][1] if "total_loss" in latest else -1
        if iteration > self.written:
            self.written = iteration
            values = {name: value for name, (value, _) in latest.items()}
            logger.info(self.describe(values, iteration + 1))
