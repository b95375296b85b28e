"""Hooks that evaluate the features or the classifier: before the first step, every few epochs, and at the end."""

import logging

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor

from moco_det.classify.accuracy import accuracy_on_features, accuracy_on_images
from moco_det.classify.classifier import Classifier
from moco_det.classify.data import CenterViews, view_batches
from moco_det.data.labeled_folder import LabeledFolder
from moco_det.engine.hooks import is_due
from moco_det.modeling.grouped_batch_norm import average_running_statistics
from moco_det.modeling.knn import knn_accuracy
from moco_det.utils.metric_names import KNN_TOP1, LINEAR_TOP1, LINEAR_TOP5

logger = logging.getLogger(__name__)


class EvaluateFeatures(HookBase):
    """Evaluates a frozen encoder: kNN once, and the linear classifiers, by the features of the test images.

    ``linear/top1`` and ``linear/top5`` are those of the recipe's own learning rate, after the last epoch and not
    the best one; with several rates, ``linear/top1_best`` is the largest of all on the test images, which is
    optimistic. The main process works, the others wait.
    """

    def __init__(self, cfg, model: Classifier, test: Tensor, test_labels: Tensor, period: int):
        """
        Args:
            test: features (M, D); ``test_labels``: (M,).
            period: in steps.
        """
        self.model, self.test, self.test_labels, self.period = model, test, test_labels, period
        self.k, self.temperature = cfg.TEST.KNN.K, cfg.TEST.KNN.TEMPERATURE
        self.train: tuple[Tensor, Tensor] | None = None

    def measure_knn(self, train: Tensor, train_labels: Tensor) -> None:
        """Measure kNN accuracy with these features, (R, D), as references, before the first step."""
        self.train = train, train_labels

    def before_train(self):
        if comm.is_main_process() and self.train is not None:
            train, labels = self.train
            k = min(self.k, len(train))
            accuracy = knn_accuracy(self.test, self.test_labels, train, labels, k, self.temperature)
            logger.info(
                f"kNN accuracy: {accuracy:.2f} % of {len(self.test)} images; {k} neighbors of {len(train)}"
                + (f" (TEST.KNN.K is {self.k})" if k != self.k else "")
            )
            self.trainer.storage.put_scalar(KNN_TOP1, accuracy, smoothing_hint=False)
        comm.synchronize()

    def after_step(self):
        if is_due(self.trainer, self.period):
            if comm.is_main_process():
                self._evaluate()
            comm.synchronize()

    def _evaluate(self) -> None:
        found = [accuracy_on_features(probe, self.test, self.test_labels) for probe in self.model.probes]
        values = {LINEAR_TOP1: found[0][0], LINEAR_TOP5: found[0][1]}
        if len(found) > 1:
            for rate, (top1, _) in zip(self.model.rates, found, strict=True):
                values[f"{LINEAR_TOP1}_lr_{rate:g}"] = top1
            values[f"{LINEAR_TOP1}_best"] = max(top1 for top1, _ in found)
        self.trainer.storage.put_scalars(smoothing_hint=False, **values)
        logger.info(describe_probes(self.model.rates, found, self.trainer.iter + 1))


def describe_probes(rates: tuple[float, ...], found: list[tuple[float, float]], done: int) -> str:
    """The log's line: the recipe's own rate first, the best one labeled as what it is."""
    (top1, top5), parts = found[0], []
    parts.append(f"step {done}: linear top-1 {top1:.2f} %, top-5 {top5:.2f} % at learning rate {rates[0]:g}")
    if len(rates) > 1:
        parts.append(
            "others " + ", ".join(f"{r:g}: {t:.2f}" for r, (t, _) in zip(rates[1:], found[1:], strict=True))
        )
        best, rate = max((t, r) for r, (t, _) in zip(rates, found, strict=True))
        parts.append(f"best on the test images, optimistic: {best:.2f} % at {rate:g}")
    return "; ".join(parts)


class EvaluateClassifier(HookBase):
    """Evaluates a network that is trained as a whole: ``top1`` and ``top5`` on the test images, over all ranks."""

    def __init__(self, cfg, model: Classifier, test: LabeledFolder, period: int):
        self.model, self.test, self.period = model, test, period
        self.batch = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        self.num_workers = cfg.DATALOADER.NUM_WORKERS

    def after_step(self):
        if not is_due(self.trainer, self.period):
            return
        average_running_statistics(self.model)
        mine = torch.arange(len(self.test)).tensor_split(comm.get_world_size())[comm.get_rank()]
        slots = [part.tolist() for part in mine.split(self.batch)]
        batches = view_batches(CenterViews(self.test), slots, self.num_workers)
        top1, top5 = accuracy_on_images(self.model, batches, len(self.test))
        self.trainer.storage.put_scalars(top1=top1, top5=top5, smoothing_hint=False)
        logger.info(
            f"step {self.trainer.iter + 1}: top-1 {top1:.2f} %, top-5 {top5:.2f} % of {len(self.test)} images"
        )
