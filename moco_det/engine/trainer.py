"""The loop of the stages that train by epochs, in detectron2's style."""

import abc
import logging
import os
import time
from collections.abc import Iterable, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter, TensorboardXWriter
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from moco_det.data.sample_order import steps_per_epoch
from moco_det.engine.checkpoint import RunCheckpointer, RunHistory
from moco_det.engine.hooks import LearningRate, LogWriter, StepStatistics, Writers
from moco_det.engine.interruption import StopOnSignal
from moco_det.engine.progress import ProgressBar
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.record import write_run_record
from moco_det.engine.run_logs import cut_metrics, read_metrics
from moco_det.engine.schedule import check_schedule
from moco_det.engine.threads import SlowStepWatch
from moco_det.modeling.precision import describe_precision, encoder_precision, precision_name
from moco_det.utils.disk_space import check_disk_space
from moco_det.utils.seeding import keyed_seed
from moco_det.weights.initial_weights import InitialWeights, load_encoders

logger = logging.getLogger(__name__)


class EpochTrainer(TrainerBase, abc.ABC):
    """What pre-training and classification share: a run of SOLVER.EPOCHS epochs that can stop, resume and be told.

    A stage builds its model and optimizer, hands them to :meth:`set_up`, and says what stands under "A stage's
    own". Its ``run_step`` takes :meth:`next_batch` and leaves what the model gave, detached, in ``outputs``.
    """

    stage: str  # in the run's record
    activity: str  # at the progress bar
    scaler: torch.amp.GradScaler | None = None

    def __init__(self, cfg: CfgNode, num_images: int, drop_last: bool = True):
        super().__init__()
        check_schedule(cfg)
        self.cfg, self.num_images = cfg, num_images
        self.history = RunHistory()
        self.steps_per_epoch = steps_per_epoch(num_images, cfg.SOLVER.IMS_PER_BATCH, drop_last)
        self.max_iter = cfg.SOLVER.EPOCHS * self.steps_per_epoch

    # ---- A stage's own ------------------------------------------------------------------------------

    @abc.abstractmethod
    def loader(self) -> Iterable[dict]:
        """The batches of this rank from ``start_iter`` on, without end."""

    @abc.abstractmethod
    def evaluation(self) -> HookBase | None:
        """What evaluates the model, every ``period`` steps of its own."""

    def watches(self) -> list[HookBase]:
        """Further hooks, which come after the evaluation and before what writes it; by default none."""
        return []

    @abc.abstractmethod
    def describe_outputs(self, latest: dict[str, float]) -> list[str]:
        """What a line of the log says of the model's outputs."""

    @abc.abstractmethod
    def record_extra(self) -> dict[str, object]:
        """What the stage adds to the run's record."""

    def check_result(self) -> None:
        """What must hold of a model that is trained; by default nothing."""

    # ---- Before a run -------------------------------------------------------------------------------

    def start_from(self, encoders: Sequence[nn.Module], weights: InitialWeights) -> None:
        """Load weights into the encoders, and name them in checkpoints and record."""
        load_encoders(encoders, weights)
        self.history.weights, self.history.weights_sha256 = os.path.basename(weights.path), weights.sha256

    def set_up(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, saved: nn.Module, arch: str, **record
    ) -> None:
        """Take what is trained.

        Args:
            saved: the part of the model that training changes, which checkpoints hold.
            arch, record: of :class:`RunCheckpointer`.
        """
        self.model, self.optimizer = distributed(model, self.cfg.MODEL.DEVICE), optimizer
        self.checkpointer = RunCheckpointer(
            saved,
            self.cfg,
            arch=arch,
            save_to_disk=comm.is_main_process(),
            num_images=self.num_images,
            optimizer=optimizer,
            history=self.history,
            **({} if self.scaler is None else {"scaler": self.scaler}),
            **record,
        )

    def resume(self) -> dict | None:
        """Continue from the last checkpoint in OUTPUT_DIR, or start when there is none.

        Returns:
            what the checkpoint holds beside what was loaded.

        Raises:
            ValueError: some machines have the checkpoint and some have not, or it is of another run.
        """
        saved = self.checkpointer.load_newest()
        if saved is not None:
            self.start_iter = self.checkpointer.next_iteration(saved, self.max_iter)
        return saved

    def check_disk_space(self) -> tuple[int, int]:
        """Bytes that the checkpoints to come take, and bytes free; refuses where these are fewer."""
        return check_disk_space(self.cfg, self.checkpointer.model, self.start_iter // self.steps_per_epoch)

    # ---- The run ------------------------------------------------------------------------------------

    def run_to_record(self, cfg: CfgNode, task: str) -> None:
        """Train to the end of the schedule and write the run's record; a run that has one is left as it is.

        Args:
            cfg: as the command line gave it, without what was counted since.
            task: the recipe's name.
        """
        if self.start_iter < self.max_iter:
            self.run()
        elif os.path.exists(os.path.join(cfg.OUTPUT_DIR, RECORD)):
            logger.info(f"{cfg.OUTPUT_DIR} holds the finished run of {self.max_iter} steps; nothing to do")
            return
        self.check_result()
        if not comm.is_main_process():
            return
        write_run_record(
            cfg.OUTPUT_DIR,
            stage=self.stage,
            cfg=cfg,
            metrics=self.final_metrics(read_metrics(self._metrics_file)),
            seconds=self.history.seconds,
            extra={
                "task": task,
                "iterations": self.max_iter,
                "images": self.num_images,
                "precision": precision_name(encoder_precision(self.cfg)),
                "weights": self.history.weights,
                "weights_sha256": self.history.weights_sha256,
                **self.record_extra(),
            },
        )

    def run(self) -> None:
        """Train from ``start_iter`` to the end of the schedule."""
        self.model.train()
        self.batches = iter(self.loader())
        self.register_hooks(self._hooks_of_run())
        logger.info(
            f"{self.num_images} images, {self.steps_per_epoch} steps an epoch, {self.max_iter} steps in all; on "
            f"{comm.get_world_size()} x {self.cfg.MODEL.DEVICE} in {describe_precision(self.cfg)}"
        )
        super().train(self.start_iter, self.max_iter)

    def next_batch(self) -> dict:
        """The next batch; ``data_seconds`` says how long the step waited for it."""
        start = time.perf_counter()
        batch = next(self.batches)
        self.data_seconds = time.perf_counter() - start
        return batch

    def _hooks_of_run(self) -> list[HookBase | None]:
        cfg, period = self.cfg, self.cfg.SOLVER.LOG_PERIOD
        self.statistics, evaluation = StepStatistics(period), self.evaluation()
        writers = self._writers() if comm.is_main_process() else []
        return [
            SlowStepWatch(cfg),  # first, so that it measures the step alone
            LearningRate(),
            self.statistics,
            evaluation,
            *self.watches(),
            Writers(writers, period, evaluation.period if evaluation else 0),
            hooks.PeriodicCheckpointer(self.checkpointer, self._checkpoint_period),
            StopOnSignal(self.save_before_stop),
        ]

    @property
    def _metrics_file(self) -> str:
        return os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")

    def _writers(self) -> list:
        cut_metrics(self._metrics_file, self.start_iter)
        return [
            ProgressBar(self.activity, self.max_iter),
            LogWriter(self.describe_outputs, self.max_iter, self.cfg.SOLVER.EPOCHS),
            JSONWriter(self._metrics_file),
            TensorboardXWriter(self.cfg.OUTPUT_DIR),
        ]

    @property
    def _checkpoint_period(self) -> int:
        return self.cfg.SOLVER.CHECKPOINT_EPOCHS * self.steps_per_epoch

    def save_before_stop(self) -> None:
        """Keep the steps since the last checkpoint; called on all ranks."""
        self.statistics.flush()
        if (self.iter + 1) % self._checkpoint_period:  # else it was just saved
            self.checkpointer.save_before_stop(f"model_{self.iter:07d}", iteration=self.iter)

    def final_metrics(self, lines: Sequence[dict[str, float]]) -> dict[str, float]:
        """The last value of each number in the lines of metrics.json."""
        return {name: value for line in lines for name, value in line.items()}


def build_seeded_model(cfg: CfgNode) -> nn.Module:
    """The model of a config, with the random weights of its seed: the same on all ranks."""
    torch.manual_seed(keyed_seed(cfg.SEED, "weights"))
    return build_model(cfg)


def with_count(cfg: CfgNode, key: str, count: int) -> CfgNode:
    """A copy of the config for the model, which is told what was counted, such as DATASETS.NUM_IMAGES."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([key, count])
    cfg.freeze()
    return cfg


def distributed(model: nn.Module, device: str) -> nn.Module:
    """The model whose gradients are means over the ranks, where there are several."""
    if comm.get_world_size() == 1:
        return model
    # Buffers are equal on all ranks already: a dictionary by its seed, statistics when they are read.
    return DistributedDataParallel(
        model, device_ids=[comm.get_local_rank()] if device == "cuda" else None, broadcast_buffers=False
    )
