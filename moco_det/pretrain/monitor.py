"""Evaluates the encoder while it trains: kNN accuracy on a labeled folder, and nearest neighbors to look at."""

import copy
import json
import logging
import os

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor

from moco_det.data.image_format import ImageFormat
from moco_det.data.labeled_folder import LabeledFolder, open_labeled_set
from moco_det.engine.hooks import is_due
from moco_det.modeling.grouped_batch_norm import average_running_statistics, update_running_statistics
from moco_det.modeling.knn import knn_accuracy, nearest
from moco_det.pretrain.diagnostics import effective_rank
from moco_det.utils.children import ignore_stop_signals
from moco_det.utils.metric_names import EFFECTIVE_RANK, KNN_ACCURACY
from moco_det.utils.progress import progress
from moco_det.utils.seeding import torch_generator

logger = logging.getLogger(__name__)


class KNNMonitor(HookBase):
    """kNN accuracy of the resulting encoder's features, before training, every few epochs and at the end.

    With few reference images K is lowered to their number. Works on the main process; the others wait.
    """

    def __init__(self, cfg, steps_per_epoch: int):
        knn = cfg.TEST.KNN
        self.train, self.test = open_labeled_set(
            knn.IMAGES,
            cfg.INPUT.VIEWS.SIZE,
            "TEST.KNN.IMAGES",
            knn.CENTER_CROP,
            cfg.TEST.HELD_OUT,
            ImageFormat.from_config(cfg),
        )
        self.k = min(knn.K, len(self.train))
        self.temperature = knn.TEMPERATURE
        self.features = knn.FEATURES
        self.period = knn.PERIOD_EPOCHS * steps_per_epoch
        self.num_workers = cfg.DATALOADER.NUM_WORKERS
        self.images_per_batch = cfg.SOLVER.IMS_PER_BATCH
        self.seed = cfg.SEED
        self.output_dir = cfg.OUTPUT_DIR

    def before_train(self):
        if self.trainer.start_iter == 0:
            # The running statistics of an untrained network describe no image yet. With those of the images its
            # features are better on some sets and worse on others (Imagenette at 64 px: 25 % instead of 35 %), so
            # the better of both is what training has to pass. On all ranks, because batch norm may synchronize.
            method = self.trainer.method
            settled = with_settled_statistics(method, self._batches_for_statistics())
            if comm.is_main_process():
                self._evaluate("untrained", method, settled)
            comm.synchronize()

    def after_step(self):
        if is_due(self.trainer, self.period):
            average_running_statistics(self.trainer.method)
            if comm.is_main_process():
                self._evaluate(f"after step {self.trainer.iter + 1}", self.trainer.method)
            comm.synchronize()

    def _batches(self, folder: LabeledFolder):
        return torch.utils.data.DataLoader(
            folder, batch_size=64, num_workers=self.num_workers, worker_init_fn=ignore_stop_signals
        )

    def _batches_for_statistics(self, steps: int = 30):
        """Random batches as large as in training, whole groups: enough for a momentum of 0.1 to settle."""
        sampler = torch.utils.data.RandomSampler(
            self.train,
            replacement=True,
            num_samples=steps * self.images_per_batch,
            generator=torch_generator(self.seed, "settle statistics"),
        )
        return torch.utils.data.DataLoader(
            self.train,
            self.images_per_batch,
            sampler=sampler,
            num_workers=self.num_workers,
            worker_init_fn=ignore_stop_signals,
        )

    def _evaluate(self, when: str, *models) -> None:
        """Log and store the accuracy of the best of the models, and its nearest neighbors."""
        (test, test_labels), train, accuracy = max(map(self._measure, models), key=lambda found: found[2])
        rank = effective_rank(train)
        logger.info(
            f"kNN accuracy {when}: {accuracy:.1f} % of {len(test)} images, {len(self.test.classes)} classes, "
            f"largest class {100 * test_labels.bincount().max() / len(test_labels):.1f} %; effective rank of the "
            f"features {rank:.1f} of {train.shape[1]}"
        )
        self.trainer.storage.put_scalars(
            smoothing_hint=False, **{KNN_ACCURACY: accuracy, EFFECTIVE_RANK: rank}
        )
        self._write_neighbors(train, test)

    def _measure(self, model) -> tuple[tuple[Tensor, Tensor], Tensor, float]:
        """Features and labels of the test images, features of the training images, and the accuracy."""
        train, train_labels = extract_features(model, self._batches(self.train), self.features)
        test, test_labels = extract_features(model, self._batches(self.test), self.features)
        accuracy = knn_accuracy(test, test_labels, train, train_labels, self.k, self.temperature)
        return (test, test_labels), train, accuracy

    def _write_neighbors(self, train: Tensor, test: Tensor, queries: int = 8, k: int = 5) -> None:
        chosen = torch.linspace(0, len(test) - 1, min(queries, len(test))).long()
        similarities, indices = nearest(test[chosen], train, min(k, len(train)))
        rows = [
            {
                "query": os.path.abspath(self.test.paths[query]),
                "label": self.test.classes[self.test.labels[query]],
                "neighbors": [
                    {
                        "path": os.path.abspath(self.train.paths[i]),
                        "label": self.train.classes[self.train.labels[i]],
                        "similarity": round(similarity, 4),
                    }
                    for i, similarity in zip(row_indices, row_similarities, strict=True)
                ],
            }
            for query, row_indices, row_similarities in zip(
                chosen.tolist(), indices.tolist(), similarities.tolist(), strict=True
            )
        ]
        with open(os.path.join(self.output_dir, "neighbors.json"), "w") as file:
            json.dump(rows, file, indent=1)


@torch.no_grad()
def extract_features(model, batches, kind: str = "pooled") -> tuple[Tensor, Tensor]:
    """Features (M, D) and labels (M,) of a labeled folder, the model in evaluation mode.

    Args:
        kind: "pooled", before the head, or "embedding", after it.
    """
    training, features_of = model.training, {"pooled": model.features, "embedding": model.embeddings}[kind]
    model.eval()
    parts = [
        (features_of(images).cpu(), labels)
        for images, labels in progress(batches, "features for kNN", len(batches), "batch")
    ]
    model.train(training)
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)


@torch.no_grad()
def with_settled_statistics(model, batches):
    """A copy of the model whose batch norm has seen the batches of images; its weights are untouched."""
    model = copy.deepcopy(model).train()
    for images, _ in batches:
        model.features(images)
        update_running_statistics(model)
    return model
