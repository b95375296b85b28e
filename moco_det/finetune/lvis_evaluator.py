"""LVIS's box and mask AP (Gupta et al. 2019): detectron2's evaluator needs a package that no current numpy runs.

The metric is federated. Of an image, a category counts only when it was looked for: it has instances there or
stands in ``neg_category_ids``. Where it stands in ``not_exhaustive_category_ids``, a detection that matches
nothing may be one of the instances that were left out, and counts neither way.
"""

import itertools
import json
import logging
import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from moco_det.utils.files import atomic_write

logger = logging.getLogger(__name__)

RESULTS = "lvis_instances_results.json"
# LVIS's rule. The package's own limit is one of each category, which lets more through.
MAX_DETECTIONS = 300
# Evaluated together: the package holds a list for each pair of image and category, 24 million in all of LVIS v1.
CATEGORIES_AT_ONCE = 100
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")


def check_lvis_package() -> None:
    """Refuse to start what could not be evaluated.

    Raises:
        ValueError: faster-coco-eval is not installed; says how to get it.
    """
    try:
        import faster_coco_eval  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            "LVIS is evaluated by the package faster-coco-eval, which is not installed; "
            "install it: pip install faster-coco-eval (or moco_det[lvis])"
        ) from error


class LvisEvaluator(DatasetEvaluator):
    """Collects the detections of all processes; the main process writes and measures them.

    Args:
        name: a registered data set; its metadata have ``json_file`` and ``thing_dataset_id_to_contiguous_id``.
        output_dir: folder for RESULTS, in the format that LVIS's server takes.
    """

    def __init__(self, name: str, output_dir: str):
        check_lvis_package()
        metadata = MetadataCatalog.get(name)
        self._json_file = metadata.json_file
        self._ids = {new: old for old, new in metadata.thing_dataset_id_to_contiguous_id.items()}
        self._output_dir = output_dir
        self.reset()

    def reset(self):
        self._images = []

    def process(self, inputs, outputs):
        """Take the ``instances`` of a batch. The best MAX_DETECTIONS of an image count, of any category."""
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            best = torch.argsort(instances.scores, descending=True, stable=True)[:MAX_DETECTIONS]
            self._images.append(instances_to_coco_json(instances[best], image["image_id"]))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """``{"bbox": {"AP": 24.1, …}, "segm": {…}}`` in percent; segm only where there are masks.

        A metric without a single instance is NaN. None on processes other than the main one.
        """
        comm.synchronize()
        gathered = comm.gather(self._images)
        if not comm.is_main_process():
            return None
        results = [d for images in gathered for image in images for d in image]
        for detection in results:
            detection["category_id"] = self._ids[detection["category_id"]]
        os.makedirs(self._output_dir, exist_ok=True)
        with atomic_write(os.path.join(self._output_dir, RESULTS)) as path:
            path.write_text(json.dumps(results))
        with open(self._json_file) as file:
            truth = json.load(file)
        tasks = ("bbox", "segm") if any("segmentation" in d for d in results) else ("bbox",)
        return {task: evaluate_lvis(truth, results, task) for task in tasks}


def evaluate_lvis(truth: dict, results: Sequence[dict], task: str) -> dict[str, float]:
    """METRICS of detections, in percent; NaN where no category (of that frequency) has an instance (of that size).

    Args:
        truth: what an LVIS file holds; the package notes things in its annotations.
        results: detections as in LVIS's result files, at most MAX_DETECTIONS an image.
        task: "bbox", or "segm" for masks as compressed run lengths.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    # The package takes the area of the box where there is one; sizes of masks are measured in their pixels.
    fields = {"image_id", "category_id", "score", "bbox" if task == "bbox" else "segmentation"}
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    annotations, detections = defaultdict(list), defaultdict(list)
    looked_for = {
        (image["id"], category) for image in truth["images"] for category in image["neg_category_ids"]
    }
    for annotation in truth["annotations"]:
        annotations[annotation["category_id"]].append(annotation)
        looked_for.add((annotation["image_id"], annotation["category_id"]))
    for detection in results:
        # The package would leave out the others itself, but with masks it fails (1.8.0, "unordered_map::at") on
        # an image without annotations of which it leaves out every detection.
        if (detection["image_id"], detection["category_id"]) in looked_for:
            detections[detection["category_id"]].append({k: detection[k] for k in fields})
    tables = []
    for start in range(0, len(categories), CATEGORIES_AT_ONCE):
        some = categories[start : start + CATEGORIES_AT_ONCE]
        own = list(itertools.chain(*(annotations[category["id"]] for category in some)))
        ground_truth = COCO({"images": truth["images"], "annotations": own, "categories": some})
        found = ground_truth.loadRes(list(itertools.chain(*(detections[c["id"]] for c in some))))
        evaluation = COCOeval_faster(ground_truth, found, task, lvis_style=True)
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        tables.append(evaluation.eval["precision"][..., -1])
    metrics = _summarize(np.concatenate(tables, axis=2), np.array([c["frequency"] for c in categories]))
    logger.info(f"Evaluation results for {task}:\n{create_small_table(metrics)}")
    return metrics


def _summarize(precision: np.ndarray, frequency: np.ndarray) -> dict[str, float]:
    """
    Args:
        precision: thresholds .5, .55, … .95 x recalls x categories x areas (all, small, medium, large), -1 where
            a category has no instance of that size.
        frequency: "r", "c" or "f" of each category.
    """
    parts = (
        *(precision[..., 0], precision[0, ..., 0], precision[5, ..., 0]),
        *(precision[..., 1], precision[..., 2], precision[..., 3]),
        *(precision[:, :, frequency == group, 0] for group in "rcf"),
    )
    counted = [part[part > -1] for part in parts]
    values = [100 * float(part.mean()) if part.size else float("nan") for part in counted]
    return dict(zip(METRICS, values, strict=True))
