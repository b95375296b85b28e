"""What happens around the steps of the stages that train by epochs: learning rate, statistics, log."""

import datetime
import logging
import math
import time
from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage

from moco_det.engine.checkpoint import CONTINUE_LOWER
from moco_det.engine.schedule import learning_rate
from moco_det.utils.metric_names import (
    DATA_WAIT,
    EPOCH,
    IMAGES_PER_SECOND,
    LEARNING_RATE,
    SECONDS_PER_STEP,
    TOTAL_LOSS,
)

logger = logging.getLogger(__name__)


class LearningRate(HookBase):
    """Sets the learning rate before each step; a function of the iteration, so it has no state.

    A parameter group with a ``base_lr`` has a schedule of its own that begins with it; one with ``decay_lr`` False
    keeps that, or SOLVER.BASE_LR.
    """

    def before_step(self):
        trainer, cfg = self.trainer, self.trainer.cfg
        for group in trainer.optimizer.param_groups:
            if group.get("decay_lr", True):
                group["lr"] = learning_rate(cfg, trainer.iter / trainer.steps_per_epoch, group.get("base_lr"))
            else:
                group["lr"] = group.get("base_lr", cfg.SOLVER.BASE_LR)


class StepStatistics(HookBase):
    """Puts the mean of the steps' statistics into the event storage every ``period`` steps.

    Between two of them nothing is read from the device, so the GPU is never waited for.
    """

    def __init__(self, period: int):
        self.period, self.steps = period, 0

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
        trainer, seconds = self.trainer, time.perf_counter() - self.since
        values[TOTAL_LOSS] = sum(value for name, value in values.items() if name.startswith("loss"))
        if not math.isfinite(values[TOTAL_LOSS]):
            raise FloatingPointError(
                f"the loss is {values[TOTAL_LOSS]} between steps {trainer.iter + 2 - self.steps} and "
                f"{trainer.iter + 1}; {CONTINUE_LOWER}"
            )
        values[SECONDS_PER_STEP] = seconds / self.steps
        values[IMAGES_PER_SECOND] = self.steps * trainer.cfg.SOLVER.IMS_PER_BATCH / seconds
        values[DATA_WAIT] = self.waited / seconds
        if trainer.scaler is not None and trainer.scaler.is_enabled():
            values["loss_scale"] = trainer.scaler.get_scale()
        values[LEARNING_RATE] = trainer.optimizer.param_groups[0]["lr"]
        values[EPOCH] = (trainer.iter + 1) / trainer.steps_per_epoch
        trainer.storage.put_scalars(smoothing_hint=False, **values)


def is_due(trainer, period: int) -> bool:
    """Whether the step just done ends a period, or the run; period 0: the run alone."""
    done = trainer.iter + 1
    return done == trainer.max_iter or (period > 0 and done % period == 0)


class Writers(PeriodicWriter):
    """Writes every ``period`` steps and at each evaluation, since the storage keeps the last value alone."""

    def __init__(self, writers: list[EventWriter], period: int, evaluation_period: int):
        super().__init__(writers, period)
        self.evaluation_period = evaluation_period

    def before_step(self):
        # What was measured before training, which the evaluation after this step replaces.
        if is_due(self.trainer, self.evaluation_period):
            self._write()

    def after_step(self):
        if is_due(self.trainer, self.evaluation_period):
            self._write()
        else:
            super().after_step()

    def _write(self) -> None:
        for writer in self._writers:
            writer.write()


class LogWriter(EventWriter):
    """Writes a line about the last steps into the log."""

    def __init__(self, describe: Callable[[dict[str, float]], list[str]], max_iter: int, epochs: int):
        """
        Args:
            describe: says what the model did, of the newest values by their names.
        """
        self.describe, self.max_iter, self.epochs = describe, max_iter, epochs
        self.written = -1

    def write(self):
        latest = get_event_storage().latest()
        iteration = latest[TOTAL_LOSS][1] if TOTAL_LOSS in latest else -1
        if iteration > self.written:
            self.written = iteration
            logger.info(self.line({name: value for name, (value, _) in latest.items()}, iteration + 1))

    def line(self, latest: dict[str, float], done: int) -> str:
        """The line after so many steps."""
        left = datetime.timedelta(seconds=int((self.max_iter - done) * latest[SECONDS_PER_STEP]))
        parts = [
            f"epoch {latest[EPOCH]:.2f}/{self.epochs} step {done}/{self.max_iter}",
            *self.describe(latest),
            f"lr {latest[LEARNING_RATE]:.5g}",
            f"{latest[IMAGES_PER_SECOND]:.0f} images/s, {latest[DATA_WAIT]:.0%} waiting for data",
            f"left {left}",
        ]
        return "  ".join(parts)
