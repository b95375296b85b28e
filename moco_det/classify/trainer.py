"""The loop that trains linear classifiers on frozen features, or a whole network, in detectron2's style."""

import datetime
import logging
import os
import time

import torch
from detectron2.engine import TrainerBase, hooks
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter, TensorboardXWriter
from torch.nn.parallel import DistributedDataParallel

from moco_det.classify.data import RandomViews, feature_batches, view_batches
from moco_det.classify.features import cached_features
from moco_det.classify.judge import JudgeClassifier, JudgeFeatures
from moco_det.data.bands import ImageFormat
from moco_det.data.labeled_folder import open_labeled_set
from moco_det.data.order import rank_batches, steps_per_epoch
from moco_det.engine.checkpoint import RunCheckpointer, RunHistory
from moco_det.engine.hooks import LearningRate, LogWriter, StepStatistics, is_due
from moco_det.engine.interruption import StopOnSignal
from moco_det.engine.progress import ProgressBar
from moco_det.engine.run_logs import cut_metrics
from moco_det.engine.threads import SlowStepWatch
from moco_det.modeling.precision import describe_precision
from moco_det.utils.seeding import keyed_seed
from moco_det.weights.loading import Start, start_from

logger = logging.getLogger(__name__)


class ClassifierTrainer(TrainerBase):
    """Trains a :class:`moco_det.classify.classifier.Classifier` on a labeled set."""

    def __init__(self, cfg, start: Start | None = None):
        """
        Args:
            start: what the encoder starts from; None: random weights, which a function of the seed draws.

        Raises:
            ValueError: the set is not as it must be, or does not fill one batch.
        """
        super().__init__()
        self.train_set, self.test_set = open_labeled_set(
            cfg.DATASETS.IMAGES,
            cfg.INPUT.VIEWS.SIZE,
            "--images",
            held_out=cfg.TEST.HELD_OUT,
            images=ImageFormat.from_config(cfg),
        )
        self.cfg = cfg = with_num_classes(cfg, len(self.train_set.classes))
        self.steps_per_epoch = steps_per_epoch(len(self.train_set), cfg.SOLVER.IMS_PER_BATCH)
        self.max_iter = cfg.SOLVER.EPOCHS * self.steps_per_epoch

        torch.manual_seed(keyed_seed(cfg.SEED, "weights"))  # the same start on all ranks
        self.classifier = build_model(cfg)
        self.history = RunHistory()
        if start is not None:
            start_from([self.classifier.encoder], start)
            self.history.weights, self.history.weights_sha256 = os.path.basename(start.path), start.sha256
        else:
            logger.warning("No --weights: the encoder starts from random weights")
        self.encoder_before = {
            name: value.clone() for name, value in self.classifier.encoder.state_dict().items()
        }
        self.model = self._distributed(self.classifier)
        self.optimizer = torch.optim.SGD(
            self._parameter_groups(),
            lr=cfg.SOLVER.BASE_LR,
            momentum=cfg.SOLVER.MOMENTUM,
            weight_decay=cfg.SOLVER.WEIGHT_DECAY,  # on batch norm and biases too
        )
        self.scaler = torch.amp.GradScaler(cfg.MODEL.DEVICE, enabled=False)
        self.checkpointer = RunCheckpointer(
            self.classifier.trained,
            cfg,
            arch=cfg.CLASSIFY.ARCH,
            stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
            save_to_disk=comm.is_main_process(),
            num_images=len(self.train_set),
            optimizer=self.optimizer,
            history=self.history,
        )
        self.checkpointer.record["classes"] = self.train_set.classes

    def _parameter_groups(self) -> list[dict]:
        classifier = self.classifier
        if not classifier.frozen:
            return [{"params": list(classifier.parameters())}]
        pairs = zip(classifier.probes, classifier.rates, strict=True)
        return [{"params": list(probe.parameters()), "base_lr": rate} for probe, rate in pairs]

    def _distributed(self, model):
        if comm.get_world_size() == 1:
            return model
        device_ids = [comm.get_local_rank()] if self.cfg.MODEL.DEVICE == "cuda" else None
        return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)

    def resume(self) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, or start when there is none.

        Raises:
            ValueError: some machines have the checkpoint and some have not, or it is of another run.
        """
        now = self.history.weights_sha256
        saved = self.checkpointer.load_newest()
        if saved is None:
            return
        if self.history.weights_sha256 != now:
            raise ValueError(
                f"MODEL.WEIGHTS {self.cfg.MODEL.WEIGHTS!r} is another file than the run in "
                f"{self.cfg.OUTPUT_DIR!r} began with (sha256 {now[:12]}, was {self.history.weights_sha256[:12]}); "
                "give the same, or start anew in another OUTPUT_DIR"
            )
        if saved["classes"] != self.train_set.classes:
            raise ValueError(f"the classes are others than those of the run in {self.cfg.OUTPUT_DIR!r}")
        self.start_iter = self.checkpointer.next_iteration(saved, self.max_iter)

    def run(self) -> None:
        """Train from ``start_iter`` to the end of the schedule."""
        self.model.train()
        logger.info(
            f"{len(self.train_set)} images of {len(self.train_set.classes)} classes, measured on "
            f"{len(self.test_set)} of {self.test_set.root}; {self.steps_per_epoch} steps an epoch, "
            f"{self.max_iter} in all; on {comm.get_world_size()} x {self.cfg.MODEL.DEVICE} "
            f"in {describe_precision(self.cfg)}"
        )
        judge = self._judge_features() if self.classifier.frozen else self._judge_classifier()
        self.register_hooks(self._hooks_of_run(judge))
        super().train(self.start_iter, self.max_iter)

    @property
    def _period(self) -> int:
        return self.cfg.CLASSIFY.PERIOD_EPOCHS * self.steps_per_epoch

    def _judge_features(self) -> JudgeFeatures:
        """Also gets what is needed of the training images: their cached features, or random views of them."""
        cfg = self.cfg
        cached = cfg.CLASSIFY.FEATURES == "cached"
        test, labels = self.features(self.test_set), torch.tensor(self.test_set.labels)
        judge = JudgeFeatures(cfg, self.classifier, test, labels, self._period)
        if cached or cfg.TEST.KNN.K:
            train, labels = self.features(self.train_set), torch.tensor(self.train_set.labels)
        if cfg.TEST.KNN.K:
            judge.vote(train, labels)
        self.batches = feature_batches(train, labels, self._slots()) if cached else self._random_views()
        return judge

    def _judge_classifier(self) -> JudgeClassifier:
        self.batches = self._random_views()
        return JudgeClassifier(self.cfg, self.classifier, self.test_set, self._period)

    def features(self, folder) -> torch.Tensor:
        """Cached features of a part of the set, (M, D)."""
        return cached_features(
            self.classifier,
            folder,
            os.path.join(self.cfg.OUTPUT_DIR, "features"),
            images_per_batch=self.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
            num_workers=self.cfg.DATALOADER.NUM_WORKERS,
        )

    def _slots(self):
        return rank_batches(
            len(self.train_set),
            seed=self.cfg.SEED,
            images_per_batch=self.cfg.SOLVER.IMS_PER_BATCH,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            start_iteration=self.start_iter,
        )

    def _random_views(self):
        views, cfg = self.cfg.INPUT.VIEWS, self.cfg
        dataset = RandomViews(self.train_set, seed=cfg.SEED, recipe=views.RECIPE, crop_scale=views.CROP_SCALE)
        return view_batches(dataset, self._slots(), cfg.DATALOADER.NUM_WORKERS)

    def _hooks_of_run(self, judge) -> list:
        cfg = self.cfg
        writers = []
        if comm.is_main_process():
            metrics = os.path.join(cfg.OUTPUT_DIR, "metrics.json")
            cut_metrics(metrics, self.start_iter)
            writers = [
                ProgressBar("classifier", self.max_iter),
                LogWriter(lambda latest, done: describe_step(latest, done, self.max_iter, cfg.SOLVER.EPOCHS)),
                JSONWriter(metrics),
                TensorboardXWriter(cfg.OUTPUT_DIR),
            ]
        self.statistics = StepStatistics(
            cfg.SOLVER.LOG_PERIOD, self.steps_per_epoch, cfg.SOLVER.IMS_PER_BATCH
        )
        return [
            SlowStepWatch(cfg),  # first, so that it measures the step alone
            LearningRate(cfg, self.optimizer, self.steps_per_epoch),
            self.statistics,
            judge,
            Writers(writers, cfg.SOLVER.LOG_PERIOD, self._period),
            hooks.PeriodicCheckpointer(self.checkpointer, self._checkpoint_period),
            StopOnSignal(self._save_before_stop),
        ]

    @property
    def _checkpoint_period(self) -> int:
        return self.cfg.SOLVER.CHECKPOINT_EPOCHS * self.steps_per_epoch

    def _save_before_stop(self) -> None:
        self.statistics.flush()
        if (self.iter + 1) % self._checkpoint_period:  # else it was just saved
            self.checkpointer.save_before_stop(f"model_{self.iter:07d}", iteration=self.iter)

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self.batches)
        self.data_seconds = time.perf_counter() - start
        self.optimizer.zero_grad()
        outputs = self.model(batch)
        sum(value for name, value in outputs.items() if name.startswith("loss")).backward()
        self.optimizer.step()
        self.outputs = {name: value.detach() for name, value in outputs.items()}

    def check_frozen(self) -> None:
        """After training linear classifiers: no tensor of the encoder changed, not by a bit.

        Raises:
            RuntimeError: one did, which is a fault of the program; names it.
        """
        now = self.classifier.encoder.state_dict()
        changed = [name for name, value in self.encoder_before.items() if not torch.equal(value, now[name])]
        if changed:
            raise RuntimeError(
                f"the encoder was to stay frozen, but {len(changed)} of its {len(now)} tensors changed, e.g. "
                f"{changed[0]}; the accuracies of this run are worthless"
            )
        logger.info(f"The encoder is what it was: all {len(now)} tensors are equal bit for bit")


class Writers(hooks.PeriodicWriter):
    """Writes every ``period`` steps, and when accuracies were measured, since the storage holds the last alone."""

    def __init__(self, writers, period: int, measured_every: int):
        super().__init__(writers, period)
        self.measured_every = measured_every

    def after_step(self):
        if is_due(self.trainer, self.measured_every):
            for writer in self._writers:
                writer.write()
        else:
            super().after_step()


def with_num_classes(cfg, num_classes: int):
    """A copy of the config for the model."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.CLASSIFY.NUM_CLASSES = num_classes
    cfg.freeze()
    return cfg


def describe_step(latest: dict[str, float], done: int, max_iter: int, epochs: int) -> str:
    """One line of the log."""
    left = datetime.timedelta(seconds=int((max_iter - done) * latest["seconds_per_step"]))
    return (
        f"epoch {latest['epoch']:.2f}/{epochs} step {done}/{max_iter}  loss {latest['loss']:.4f}  accuracy on the "
        f"batch {latest['accuracy']:.1%}  lr {latest['lr']:.5g}  {latest['images_per_second']:.0f} images/s, "
        f"{latest['data_wait']:.0%} waiting for data  left {left}"
    )
