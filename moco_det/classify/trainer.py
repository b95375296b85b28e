"""The loop that trains linear classifiers on frozen features, or a whole network, in detectron2's style."""

import functools
import logging
import os

import torch
from detectron2.utils import comm
from torch import Tensor

from moco_det.classify.data import RandomViews, feature_batches, view_batches
from moco_det.classify.evaluation_hooks import EvaluateClassifier, EvaluateFeatures
from moco_det.classify.features import cached_features
from moco_det.data.image_format import ImageFormat
from moco_det.data.labeled_folder import open_labeled_set
from moco_det.data.sample_order import rank_batches, steps_per_epoch
from moco_det.engine.trainer import EpochTrainer, build_seeded_model, with_count
from moco_det.weights.initial_weights import InitialWeights

logger = logging.getLogger(__name__)


class ClassifierTrainer(EpochTrainer):
    """Trains a :class:`moco_det.classify.classifier.Classifier` on a labeled set."""

    stage, activity = "classify", "classifier"

    def __init__(self, cfg, weights: InitialWeights | None = None):
        """
        Args:
            weights: what the encoder starts from; None: random weights, which are a function of the seed.

        Raises:
            ValueError: the set is not as it must be, or does not fill one batch.
        """
        self.train_set, self.test_set = open_labeled_set(
            cfg.DATASETS.IMAGES,
            cfg.INPUT.VIEWS.SIZE,
            "--images",
            held_out=cfg.TEST.HELD_OUT,
            image_format=ImageFormat.from_config(cfg),
        )
        self.classes, self.weights = self.train_set.classes, weights
        cfg = with_count(cfg, "CLASSIFY.NUM_CLASSES", len(self.classes))
        # As the official linear protocol; where batch norm learns, a smaller batch would not hold whole groups.
        self.drop_last = not cfg.CLASSIFY.FREEZE
        super().__init__(cfg, len(self.train_set), self.drop_last)

        self.classifier = build_seeded_model(cfg)
        if weights is not None:
            self.start_from([self.classifier.encoder], weights)
        else:
            logger.warning("No --weights: the encoder starts from random weights")
        self.encoder_before = {
            name: value.clone() for name, value in self.classifier.encoder.state_dict().items()
        }
        optimizer = torch.optim.SGD(
            self._parameter_groups(),
            lr=cfg.SOLVER.BASE_LR,
            momentum=cfg.SOLVER.MOMENTUM,
            weight_decay=cfg.SOLVER.WEIGHT_DECAY,  # on batch norm and biases too
        )
        self.set_up(
            self.classifier,
            optimizer,
            saved=self.classifier.trained,
            arch=cfg.CLASSIFY.ARCH,
            stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
        )
        self.checkpointer.record["classes"] = self.classes
        self.checkpointer.record["steps_per_epoch"] = self.steps_per_epoch

    def _parameter_groups(self) -> list[dict]:
        classifier = self.classifier
        if not classifier.frozen:
            return [{"params": list(classifier.parameters())}]
        pairs = zip(classifier.probes, classifier.rates, strict=True)
        return [{"params": list(probe.parameters()), "base_lr": rate} for probe, rate in pairs]

    def resume(self) -> dict | None:
        now = self.history.weights_sha256
        saved = super().resume()
        if saved is None:
            return None
        if self.history.weights_sha256 != now:
            raise ValueError(
                f"MODEL.WEIGHTS {self.cfg.MODEL.WEIGHTS!r} is another file than the run in "
                f"{self.cfg.OUTPUT_DIR!r} began with (sha256 {now[:12]}, was {self.history.weights_sha256[:12]}); "
                "give the same, or start again in another OUTPUT_DIR"
            )
        if saved["classes"] != self.classes:
            raise ValueError(f"the classes are others than those of the run in {self.cfg.OUTPUT_DIR!r}")
        # Checkpoints without it are of a version that dropped the last smaller batch in all runs.
        steps = saved.get(
            "steps_per_epoch", steps_per_epoch(len(self.train_set), self.cfg.SOLVER.IMS_PER_BATCH)
        )
        if steps != self.steps_per_epoch:
            raise ValueError(
                f"the run in {self.cfg.OUTPUT_DIR!r} has {steps} steps an epoch, and this version of moco_det "
                f"makes {self.steps_per_epoch}, since the last smaller batch is used; start it again in another "
                "OUTPUT_DIR"
            )
        return saved

    def loader(self):
        """Random views of the training images, or their cached features."""
        if self.classifier.frozen and self.cfg.CLASSIFY.FEATURES == "cached":
            return feature_batches(*self.training_features, self._slots())
        return self._random_views()

    @functools.cached_property
    def training_features(self) -> tuple[Tensor, Tensor]:
        """Features (M, D) and labels (M,) of the training images."""
        return self.features(self.train_set), torch.tensor(self.train_set.labels)

    def evaluation(self) -> EvaluateFeatures | EvaluateClassifier:
        cfg, period = self.cfg, self.cfg.CLASSIFY.PERIOD_EPOCHS * self.steps_per_epoch
        logger.info(
            f"{len(self.classes)} classes, measured on {len(self.test_set)} images of {self.test_set.root}"
        )
        if not self.classifier.frozen:
            return EvaluateClassifier(cfg, self.classifier, self.test_set, period)
        test, labels = self.features(self.test_set), torch.tensor(self.test_set.labels)
        evaluation = EvaluateFeatures(cfg, self.classifier, test, labels, period)
        if cfg.TEST.KNN.K:
            evaluation.measure_knn(*self.training_features)
        return evaluation

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
            drop_last=self.drop_last,
        )

    def _random_views(self):
        views, cfg = self.cfg.INPUT.VIEWS, self.cfg
        dataset = RandomViews(self.train_set, seed=cfg.SEED, recipe=views.RECIPE, crop_scale=views.CROP_SCALE)
        return view_batches(dataset, self._slots(), cfg.DATALOADER.NUM_WORKERS)

    @staticmethod
    def describe_outputs(latest: dict[str, float]) -> list[str]:
        return [f"loss {latest['loss']:.4f}", f"accuracy on the batch {latest['accuracy']:.1%}"]

    def record_extra(self) -> dict[str, object]:
        return {
            "init": self.weights.source if self.weights else "random",
            "test_images": len(self.test_set),
            "classes": len(self.classes),
        }

    def run_step(self) -> None:
        self.optimizer.zero_grad()
        outputs = self.model(self.next_batch())
        sum(value for name, value in outputs.items() if name.startswith("loss")).backward()
        self.optimizer.step()
        self.outputs = {name: value.detach() for name, value in outputs.items()}

    def check_result(self) -> None:
        """A frozen encoder is what it was, bit for bit.

        Raises:
            RuntimeError: a tensor of it changed, which is a fault of the program; names it.
        """
        if not self.classifier.frozen:
            return
        now = self.classifier.encoder.state_dict()
        changed = [name for name, value in self.encoder_before.items() if not torch.equal(value, now[name])]
        if changed:
            raise RuntimeError(
                f"the encoder was to stay frozen, but {len(changed)} of its {len(now)} tensors changed, e.g. "
                f"{changed[0]}; the accuracies of this run are worthless"
            )
        logger.info(f"The encoder is what it was: all {len(now)} tensors are equal bit for bit")
