"""The pre-training loop in detectron2's style."""

import contextlib
import logging
import os
import time
from collections.abc import Sequence

import torch
from detectron2.engine import TrainerBase, hooks
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter, TensorboardXWriter
from torch.nn.parallel import DistributedDataParallel

from moco_det.data.bands import check_images, picture
from moco_det.data.images import names_digest
from moco_det.data.order import steps_per_epoch
from moco_det.data.views import ViewSettings
from moco_det.engine.agreement import check_agreement
from moco_det.engine.checkpoint import RunCheckpointer, RunHistory
from moco_det.engine.hooks import LearningRate, LogWriter, StepStatistics
from moco_det.engine.interruption import StopOnSignal
from moco_det.engine.progress import ProgressBar
from moco_det.engine.run_logs import cut_metrics
from moco_det.engine.schedule import check_schedule
from moco_det.engine.threads import SlowStepWatch
from moco_det.modeling.precision import describe_precision
from moco_det.pretrain.diagnostics import CollapseWatch
from moco_det.pretrain.feeding import DataWaitWatch
from moco_det.pretrain.hooks import UnreadableImages, describe_step
from moco_det.pretrain.loader import UnreadableLog, build_loader, colors_on_device, finish_batch
from moco_det.pretrain.method import StepState, method_class
from moco_det.pretrain.monitor import KNNMonitor
from moco_det.pretrain.numerics import LossGuard, stop_at_loss, with_clipped_gradients
from moco_det.pretrain.optimizers import build_optimizer
from moco_det.pretrain.preflight import unlabeled_images
from moco_det.pretrain.start import read_pretraining_start
from moco_det.utils.seeding import keyed_seed
from moco_det.weights.loading import start_from

logger = logging.getLogger(__name__)


class PretrainTrainer(TrainerBase):
    """Trains the method of a config, a :class:`moco_det.pretrain.method.PretrainMethod`, on unlabeled images."""

    def __init__(self, cfg, paths: Sequence[str] | None = None):
        """
        Args:
            paths: of the images, where they were found before; None: those that the config names are found.
        """
        super().__init__()
        self.cfg, self.views = cfg, ViewSettings.from_config(cfg)
        self.history = RunHistory()
        self.paths = unlabeled_images(cfg) if paths is None else paths
        check_agreement({"the list of images": names_digest(self.paths, cfg.DATASETS.IMAGES)})
        check_images(self.paths, self.views.images)
        check_schedule(cfg)
        method_class(cfg).check_num_images(cfg, len(self.paths))
        self.steps_per_epoch = steps_per_epoch(len(self.paths), cfg.SOLVER.IMS_PER_BATCH)
        self.max_iter = self.scheduled = cfg.SOLVER.EPOCHS * self.steps_per_epoch

        torch.manual_seed(keyed_seed(cfg.SEED, "weights"))  # the same start on all ranks
        self.method = build_model(with_num_images(cfg, len(self.paths)))
        self.model = self._distributed(self.method)
        self.optimizer = build_optimizer(cfg, self.method.parameter_groups())
        self.optimizer = with_clipped_gradients(cfg, self.optimizer)
        self.guard = LossGuard()
        # Small gradients would vanish in float16; in other precisions it does nothing.
        self.scaler = torch.amp.GradScaler(cfg.MODEL.DEVICE, enabled=cfg.SOLVER.PRECISION == "float16")
        self.checkpointer = RunCheckpointer(
            self.method,
            cfg,
            arch=cfg.MODEL.ENCODER.ARCH,
            save_to_disk=comm.is_main_process(),
            num_images=len(self.paths),
            optimizer=self.optimizer,
            scaler=self.scaler,
            history=self.history,
        )
        self.checkpointer.record["moco_det"]["encoder"] = self.method.result

        if cfg.MODEL.WEIGHTS and not self.checkpointer.has_checkpoint():  # else the checkpoint replaces them
            start = read_pretraining_start(cfg)
            start_from(self.method.encoders, start)
            self.history.weights, self.history.weights_sha256 = os.path.basename(start.path), start.sha256

    def _distributed(self, model):
        if comm.get_world_size() == 1:
            return model
        device_ids = [comm.get_local_rank()] if self.cfg.MODEL.DEVICE == "cuda" else None
        # Buffers are equal on all ranks already: the dictionary by its seed, the statistics when they are read.
        return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)

    def resume(self) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, or start when there is none.

        Raises:
            ValueError: some machines have the checkpoint and some have not, or it is of another run.
        """
        saved = self.checkpointer.load_newest()
        if saved is not None:
            self.start_iter = self.checkpointer.next_iteration(saved, self.max_iter)

    def run(self) -> None:
        """Train from ``start_iter`` to the end of the schedule."""
        self.model.train()
        self.batches = iter(self.loader())
        self.register_hooks(self._hooks_of_run())
        logger.info(
            f"{len(self.paths)} images, {self.steps_per_epoch} steps an epoch, {self.max_iter} steps in all; "
            f"on {comm.get_world_size()} x {self.cfg.MODEL.DEVICE} in {describe_precision(self.cfg)}"
        )
        super().train(self.start_iter, self.max_iter)

    def loader(self):
        """The batches of this rank from ``start_iter`` on, without end."""
        cfg = self.cfg
        return build_loader(
            self.paths,
            seed=cfg.SEED,
            images_per_batch=cfg.SOLVER.IMS_PER_BATCH,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            start_iteration=self.start_iter,
            views=self.views,
            finished=not colors_on_device(cfg),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            prefetch=cfg.DATALOADER.PREFETCH,
        )

    def _hooks_of_run(self) -> list:
        cfg = self.cfg
        writers, unreadable = [], None
        if comm.is_main_process():
            metrics = os.path.join(cfg.OUTPUT_DIR, "metrics.json")
            cut_metrics(metrics, self.start_iter)
            unreadable = UnreadableLog(
                os.path.join(cfg.OUTPUT_DIR, "unreadable_images.txt"),
                max_share=cfg.DATASETS.MAX_UNREADABLE,
                num_images=len(self.paths),
                resume=self.start_iter > 0,
            )
            writers = [
                ProgressBar("pre-training", self.max_iter),
                LogWriter(lambda latest, done: describe_step(latest, done, self.max_iter, cfg.SOLVER.EPOCHS)),
                JSONWriter(metrics),
                TensorboardXWriter(cfg.OUTPUT_DIR),
            ]
        self.knn = KNNMonitor(cfg, self.steps_per_epoch) if cfg.TEST.KNN.IMAGES else None
        period, batch = cfg.SOLVER.LOG_PERIOD, cfg.SOLVER.IMS_PER_BATCH
        self.statistics = StepStatistics(period, self.steps_per_epoch, batch)
        self.unreadable = UnreadableImages(unreadable, period, batch)
        return [
            SlowStepWatch(cfg),  # first, so that it measures the step alone
            LearningRate(cfg, self.optimizer, self.steps_per_epoch),
            self.statistics,
            self.unreadable,
            self.knn,
            CollapseWatch(period),
            DataWaitWatch(cfg, period),
            hooks.PeriodicWriter(writers, period),
            hooks.PeriodicCheckpointer(self.checkpointer, self._checkpoint_period),
            StopOnSignal(self._save_before_stop),
        ]

    @property
    def _checkpoint_period(self) -> int:
        return self.cfg.SOLVER.CHECKPOINT_EPOCHS * self.steps_per_epoch

    def _save_before_stop(self) -> None:
        self.statistics.flush()
        self.unreadable.flush()
        if (self.iter + 1) % self._checkpoint_period:  # else it was just saved
            self.checkpointer.save_before_stop(f"model_{self.iter:07d}", iteration=self.iter)

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self.batches)
        self.data_seconds = time.perf_counter() - start
        self.batch = finish_batch(batch, self.views, self.cfg.MODEL.DEVICE)
        if self.iter == 0 and comm.is_main_process():
            path = os.path.join(self.cfg.OUTPUT_DIR, "sample_views.png")
            save_sample_views(self.batch, path, self.cfg.INPUT.SHOWN_CHANNELS)

        self.optimizer.zero_grad()
        step = StepState()
        parts = [self._backward(part, step) for part in range(self.cfg.SOLVER.ACCUMULATE)]
        self.outputs = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
        finite = comm.all_gather(self.guard.all_finite())
        if not all(finite):
            stop_at_loss(self, finite)
        self.method.after_backward(self.iter, self.progress)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.after_step(self.progress)

    @property
    def progress(self) -> float:
        """Share of the schedule's steps that are done, in [0, 1)."""
        return self.iter / self.scheduled

    def _inputs(self, micro_batch: int, step: StepState) -> dict:
        """What the method gets, see its ``forward``."""
        return {
            **self.batch,
            "iteration": self.iter,
            "progress": self.progress,
            "micro_batch": micro_batch,
            "step": step,
        }

    def forward_again(self) -> None:
        """Repeat the forward passes of the step, on all ranks at once; the dictionary takes the batch twice."""
        step = StepState()
        for part in range(self.cfg.SOLVER.ACCUMULATE):
            self.method(self._inputs(part, step))

    def _backward(self, micro_batch: int, step: StepState) -> dict[str, torch.Tensor]:
        """Gradients of one micro-batch, added to those before it; returns what the model did, detached."""
        count = self.cfg.SOLVER.ACCUMULATE
        last = micro_batch == count - 1
        distributed = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if distributed and not last else contextlib.nullcontext():
            outputs = self.model(self._inputs(micro_batch, step))
            loss = sum(value for name, value in outputs.items() if name.startswith("loss")) / count
            self.guard.note(loss)
            self.scaler.scale(loss).backward()
        return {name: value.detach() for name, value in outputs.items()}


def with_num_images(cfg, num_images: int):
    """A copy of the config for the model, which may need as many places as there are images."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.NUM_IMAGES = num_images
    cfg.freeze()
    return cfg


def save_sample_views(batch: dict, path: str, channels: Sequence[int], pairs: int = 8) -> None:
    """A picture of the first views, of three channels: queries in the upper row, their keys below."""
    rows = [torch.cat(list(batch[name][:pairs]), dim=2) for name in ("query", "key")]  # CxSx(pairs*S)
    picture(torch.cat(rows, dim=1), channels).save(path)
