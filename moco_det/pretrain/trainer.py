"""The pre-training loop in detectron2's style."""

import contextlib
import os
from collections.abc import Sequence

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from moco_det.data.image_files import names_digest
from moco_det.data.image_format import ImageFormat, check_images, picture
from moco_det.data.views import ViewSettings
from moco_det.engine.agreement import check_agreement
from moco_det.engine.checkpoint_files import newest_first
from moco_det.engine.trainer import EpochTrainer, build_seeded_model, with_count
from moco_det.pretrain.diagnostics import CollapseWatch
from moco_det.pretrain.feeding import DataWaitWatch
from moco_det.pretrain.loader import UnreadableImages, augments_on_device, build_loader, finish_batch
from moco_det.pretrain.method import StepState, method_class
from moco_det.pretrain.monitor import KNNMonitor
from moco_det.pretrain.numerics import LossGuard, stop_at_loss, with_clipped_gradients
from moco_det.pretrain.optimizers import build_optimizer
from moco_det.pretrain.preflight import initial_weights, unlabeled_images
from moco_det.utils.metric_names import (
    ACCURACY,
    BANK_FILL,
    EMBEDDING_STD,
    KNN_ACCURACY,
    KNN_UNTRAINED,
    QUEUE_FILL,
    SIMILARITY_BATCH,
    SIMILARITY_NEGATIVE,
    SIMILARITY_POSITIVE,
    TOTAL_LOSS,
)

FILLS = {"queue": QUEUE_FILL, "bank": BANK_FILL}  # of each dictionary that fills


class PretrainTrainer(EpochTrainer):
    """Trains the method of a config, a :class:`moco_det.pretrain.method.PretrainMethod`, on unlabeled images."""

    stage, activity = "pretrain", "pre-training"

    def __init__(self, cfg, paths: Sequence[str] | None = None):
        """
        Args:
            paths: of the images, where they were found before; None: those that the config names are found.
        """
        self.paths = unlabeled_images(cfg) if paths is None else paths
        check_agreement({"the list of images": names_digest(self.paths, cfg.DATASETS.IMAGES)})
        check_images(self.paths, ImageFormat.from_config(cfg))
        method_class(cfg).check_num_images(cfg, len(self.paths))
        super().__init__(cfg, len(self.paths))
        self.views, self.scheduled = ViewSettings.from_config(cfg), self.max_iter
        # A memory bank has a place for each image.
        self.method = build_seeded_model(with_count(cfg, "DATASETS.NUM_IMAGES", self.num_images))
        if cfg.MODEL.WEIGHTS and not newest_first(cfg.OUTPUT_DIR):  # else a checkpoint replaces them
            self.start_from(self.method.encoders, initial_weights(cfg))
        self.guard = LossGuard()
        # Small gradients would vanish in float16; in other precisions it does nothing.
        self.scaler = torch.amp.GradScaler(cfg.MODEL.DEVICE, enabled=cfg.SOLVER.PRECISION == "float16")
        optimizer = with_clipped_gradients(cfg, build_optimizer(cfg, self.method.parameter_groups()))
        self.set_up(self.method, optimizer, saved=self.method, arch=cfg.MODEL.ENCODER.ARCH)
        self.checkpointer.record["moco_det"]["encoder"] = self.method.result

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
            finished=not augments_on_device(cfg),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            prefetch=cfg.DATALOADER.PREFETCH,
        )

    def evaluation(self) -> KNNMonitor | None:
        return KNNMonitor(self.cfg, self.steps_per_epoch) if self.cfg.TEST.KNN.IMAGES else None

    def watches(self) -> list[HookBase]:
        cfg, period = self.cfg, self.cfg.SOLVER.LOG_PERIOD
        self.unreadable = UnreadableImages(cfg, self.num_images, resume=self.start_iter > 0)
        return [self.unreadable, CollapseWatch(period), DataWaitWatch(cfg, period)]

    def save_before_stop(self) -> None:
        self.unreadable.flush()
        super().save_before_stop()

    @staticmethod
    def describe_outputs(latest: dict[str, float]) -> list[str]:
        """Describe the outputs in words that a newcomer can read; methods put in what they have."""
        parts = [f"loss {latest[TOTAL_LOSS]:.4f}"]
        if ACCURACY in latest:
            parts.append(f"(K+1)-way accuracy {latest[ACCURACY]:.1%}")
        if SIMILARITY_POSITIVE in latest:
            own, others = latest[SIMILARITY_POSITIVE], latest[SIMILARITY_NEGATIVE]
            where = next((name for name, fill in FILLS.items() if fill in latest), "negatives")
            parts.append(
                f"similarity {own:.2f} positive, {latest[SIMILARITY_BATCH]:.2f} batch, {others:.2f} {where}"
            )
        elif EMBEDDING_STD in latest:
            parts.append(f"embedding std {latest[EMBEDDING_STD]:.2f} (1: even, 0: all the same)")
        for name, key in FILLS.items():
            fill = latest.get(key)
            if fill is not None:
                filling = " (the loss rises until it is full)" if fill < 0.99 else ""
                parts.append(f"{name} fill {fill:.0%}{filling}")
        return parts

    def final_metrics(self, lines: Sequence[dict[str, float]]) -> dict[str, float]:
        """Those of any stage, and the first kNN accuracy as KNN_UNTRAINED."""
        accuracies = [line[KNN_ACCURACY] for line in lines if KNN_ACCURACY in line]
        untrained = {KNN_UNTRAINED: accuracies[0]} if accuracies else {}
        return super().final_metrics(lines) | untrained

    def record_extra(self) -> dict[str, object]:
        views = 2 + self.cfg.INPUT.VIEWS.SMALL_CROPS
        return {"views": views * self.max_iter * self.cfg.SOLVER.IMS_PER_BATCH}

    def run_step(self) -> None:
        self.batch = finish_batch(self.next_batch(), self.views, self.cfg.MODEL.DEVICE)
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
        """Fraction of the schedule's steps that are done, in [0, 1)."""
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
        """Repeat the forward passes of the step, on all ranks at once, to find where a value stopped being finite.
        The run ends after it: momentum encoder and dictionary take the batch twice."""
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


def save_sample_views(batch: dict, path: str, channels: Sequence[int], pairs: int = 8) -> None:
    """A picture of the first views, of three channels: queries in the upper row, their keys below."""
    rows = [torch.cat(list(batch[name][:pairs]), dim=2) for name in ("query", "key")]  # CxSx(pairs*S)
    picture(torch.cat(rows, dim=1), channels).save(path)
