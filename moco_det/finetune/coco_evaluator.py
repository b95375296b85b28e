"""COCO's box, mask and keypoint AP by faster-coco-eval, the maintained evaluator in C++.

``TEST.COCO_EVALUATOR`` chooses it. pycocotools stays the default, since papers are measured by it; a test holds
that both give the same numbers.
"""

import collections
import contextlib
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from pycocotools import mask
from pycocotools.coco import COCO

from moco_det.config.key import FINETUNE
from moco_det.config.rules import check_value
from moco_det.utils.files import atomic_write

PYCOCOTOOLS, FASTER = "pycocotools", "faster_coco_eval"
RESULTS = "coco_instances_results.json"


def check_coco_evaluator(cfg: CfgNode) -> None:
    """Refuse to start what could not be evaluated.

    Raises:
        ValueError: TEST.COCO_EVALUATOR is none of the two, or the package that it names is not installed.
    """
    found = cfg.TEST.COCO_EVALUATOR
    check_value("TEST.COCO_EVALUATOR", found, FINETUNE)
    if found == FASTER:
        try:
            import faster_coco_eval  # noqa: F401
        except ModuleNotFoundError as error:
            raise ValueError(
                f"TEST.COCO_EVALUATOR is {FASTER!r}, but the package faster-coco-eval is not installed; install "
                f"it: pip install faster-coco-eval (or moco_det[fast-eval]), or give {PYCOCOTOOLS!r}"
            ) from error


def build_coco_evaluator(cfg: CfgNode, name: str) -> DatasetEvaluator:
    """The evaluator of a registered data set, as TEST.COCO_EVALUATOR says.

    Raises:
        ValueError: see :func:`check_coco_evaluator`.
    """
    check_coco_evaluator(cfg)
    evaluator = FasterCocoEvaluator if cfg.TEST.COCO_EVALUATOR == FASTER else FillingCocoEvaluator
    return evaluator(
        name,
        output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"),
        # detectron2's compiled evaluator is "unofficial", and not on every machine.
        use_fast_impl=False,
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,  # empty: COCO's, of its 17 points
    )


class Truth(COCO):
    """pycocotools' reader, with the fields filled in that it needs and labeling tools leave out.

    Attributes:
        filled: how many annotations got a field, by its name.
    """

    def __init__(self, json_file: str):
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(json_file)
        self.filled = fill_in(self)


def fill_in(truth: COCO) -> dict[str, int]:
    """Add ``iscrowd`` (0), ``area`` (of the mask, else of the box) and ``num_keypoints`` where there are none.

    Ids are renumbered where they are not all whole numbers from 1: to pycocotools a match with annotation 0 is
    none, and a word an error.

    Returns:
        how many annotations got a field, by its name.
    """
    filled = collections.Counter()
    annotations = truth.dataset.get("annotations", ())
    if not all(type(annotation["id"]) is int and annotation["id"] > 0 for annotation in annotations):
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
        filled["id"] = len(annotations)
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
    for annotation in annotations:
        # A field may be there and hold null.
        if annotation.get("iscrowd") is None:
            annotation["iscrowd"] = 0
            filled["iscrowd"] += 1
        if not _is_area(annotation.get("area")) and "bbox" in annotation:
            annotation["area"] = _area(truth, annotation)
            filled["area"] += 1
        if annotation.get("keypoints") and annotation.get("num_keypoints") is None:
            annotation["num_keypoints"] = sum(seen > 0 for seen in annotation["keypoints"][2::3])
            filled["num_keypoints"] += 1
    return dict(filled)


def _is_area(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def _area(truth: COCO, annotation: dict) -> float:
    if annotation.get("segmentation"):
        return float(mask.area(truth.annToRLE(annotation)))
    return float(annotation["bbox"][2] * annotation["bbox"][3])


class FillingCocoEvaluator(COCOEvaluator):
    """detectron2's evaluator, for label files that leave out what :func:`fill_in` adds."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        fill_in(self._coco_api)


class FasterCocoEvaluator(FillingCocoEvaluator):
    """detectron2's evaluator in all (gathering, files, names of the metrics) but the matching and counting."""

    def _eval_predictions(self, predictions: Sequence[dict], img_ids: Sequence[int] | None = None) -> None:
        # detectron2 chooses the class that counts by a name of its module, so this step is the smallest that a
        # subclass can replace.
        results = list(itertools.chain.from_iterable(prediction["instances"] for prediction in predictions))
        if not (self._do_evaluation and results):
            super()._eval_predictions(predictions, img_ids)  # there is nothing to count
            return
        contiguous = getattr(self._metadata, "thing_dataset_id_to_contiguous_id", None)
        if contiguous is not None:
            ids = {new: old for old, new in contiguous.items()}
            results = [result | {"category_id": ids[result["category_id"]]} for result in results]
        if self._output_dir:
            with atomic_write(os.path.join(self._output_dir, RESULTS)) as path:
                path.write_text(json.dumps(results))
        for task in sorted(self._tasks or self._tasks_from_predictions(results)):
            counted = count_matches(self._coco_api.dataset, results, task, self._kpt_oks_sigmas, img_ids)
            self._results[task] = self._derive_coco_results(
                counted, task, class_names=self._metadata.get("thing_classes")
            )


def count_matches(
    truth: dict,
    results: Iterable[dict],
    task: str,
    sigmas: Sequence[float] = (),
    image_ids: Sequence[int] | None = None,
):
    """Match and count detections as pycocotools does.

    Args:
        truth: what a COCO file holds; stays as it is.
        results: detections as in COCO's result files, at least one; stay as they are.
        task: "bbox", "segm" or "keypoints".
        sigmas: of each keypoint, as TEST.KEYPOINT_OKS_SIGMAS; empty: COCO's.
        image_ids: the images to count, default all.

    Returns:
        the package's ``COCOeval_faster``: ``stats`` holds the summary, each in [0, 1] (-1: no such instance), and
        ``eval["precision"]`` thresholds x recalls x categories x areas x numbers of detections.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    # The package notes things in annotations and detections: hence copies.
    ground_truth = COCO(truth | {"annotations": [dict(annotation) for annotation in truth["annotations"]]})
    # It takes the area of the box where there is one; sizes of masks are measured in their pixels.
    dropped = {"bbox"} if task == "segm" else set()
    found = ground_truth.loadRes([{k: v for k, v in r.items() if k not in dropped} for r in results])
    evaluation = COCOeval_faster(ground_truth, found, task)
    # For keypoints it would leave out the categories without annotations.
    evaluation.params.catIds = sorted(ground_truth.getCatIds())
    if image_ids is not None:
        evaluation.params.imgIds = list(image_ids)
    if task == "keypoints" and sigmas:
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation
