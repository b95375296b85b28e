"""The records of a data set, as the mapper and the evaluator will meet them: every one, before the first step."""

import collections
import copy
import json
import math
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from moco_det.finetune.check_findings import FAULT, WARNING, Findings
from moco_det.finetune.coco_evaluator import Truth

# Seconds for the mapping of a data set's records.
SECONDS = 15.0
# Images shown at less than this part of their size, with a median box below so many pixels, are warned of.
SHRUNK, SMALL = 3, 32
_NO_CROWD = "set iscrowd to 0 where an object is no crowd"
BITMASK = "give INPUT.MASK_FORMAT bitmask"


@dataclass(frozen=True)
class Use:
    """What a run wants of a data set.

    Attributes:
        train: it is trained on; else it is tested on; None: not known.
        masks: "polygon" or "bitmask" where masks are trained, else empty; None: not known.
        keypoints: how many each object has; 0: none are used.
        filter_empty: images without a usable object are left out of the training.
        channels, range: INPUT.CHANNELS and INPUT.RANGE.
        side: the shorter side at which a detector is shown images (INPUT.MIN_SIZE_TEST); 0: their own.
    """

    train: bool | None = None
    masks: str | None = None
    keypoints: int = 0
    filter_empty: bool = True
    channels: int = 3
    range: tuple[float, ...] = ()
    side: int = 0


def use_of(cfg: CfgNode, train: bool) -> Use:
    """How a config uses its data sets."""
    boxes = cfg.MODEL.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN")
    return Use(
        train,
        cfg.INPUT.MASK_FORMAT if boxes and cfg.MODEL.MASK_ON else "",
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS if boxes and cfg.MODEL.KEYPOINT_ON else 0,
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        cfg.INPUT.CHANNELS,
        tuple(cfg.INPUT.RANGE),
        cfg.INPUT.MIN_SIZE_TEST if boxes else 0,
    )


def look_at_records(records: Sequence[dict], metadata: Metadata, use: Use, findings: Findings) -> None:
    """Note what the mapper would stop at in the records' annotations, and what would be trained wrongly."""
    classes = len(metadata.get("thing_classes") or ())
    usable = objects = 0
    largest = 0.0
    masks = collections.Counter()
    for record in records:
        annotations = record.get("annotations", ())
        objects += len(annotations)
        for number, annotation in enumerate(annotations, start=1):
            if annotation.get("iscrowd", 0) != 0:  # which the mapper leaves out
                if annotation["iscrowd"] != 1:
                    example = f"{annotation['iscrowd']!r} in {os.path.basename(record['file_name'])}"
                    findings.add(FAULT, "iscrowd that is neither 0 nor 1", example)
                continue
            usable += 1
            masks[type(annotation.get("segmentation")).__name__] += 1
            fault = _fault(annotation, classes, use)
            if not fault:
                largest = max(largest, *annotation["bbox"])
            else:
                kind, fix = fault
                findings.add(FAULT, kind, f"object {number} of {os.path.basename(record['file_name'])}", fix)
    if 0 < largest <= 1:
        findings.add(
            FAULT,
            "boxes between 0 and 1",
            "all of them",
            "give pixels: x times the width, y times the height",
        )
    if use.masks is None:
        _warn_of_masks(masks, metadata, findings)
    if use.side and not findings.of(FAULT):
        _warn_of_size(records, use.side, findings)
    if not usable and use.train is not False and records and "annotations" in records[0]:
        if objects:
            reason = f"all {objects} objects are iscrowd, which training leaves out"
            findings.add(FAULT, "nothing to train on", reason, _NO_CROWD)
        else:
            level = FAULT if use.train else WARNING
            findings.add(level, "nothing to train on", f"no object in {len(records)} images")


def _warn_of_size(records: Sequence[dict], side: int, findings: Findings) -> None:
    """Note images that are shown much smaller than they are, with objects that are small then: a recipe for other
    images, such as a toy one."""
    shorter, sizes = [], []
    for record in records:
        objects = [each for each in record.get("annotations", ()) if len(each.get("bbox", ())) == 4]
        if objects and record.get("height") and record.get("width"):
            shorter.append(min(record["height"], record["width"]))
            for each in objects:
                x, y, width, height = BoxMode.convert(each["bbox"], each["bbox_mode"], BoxMode.XYWH_ABS)
                sizes.append(side / shorter[-1] * math.sqrt(max(width * height, 0)))
    if not sizes:
        return
    image, box = statistics.median(shorter), statistics.median(sizes)
    if side < image / SHRUNK and box < SMALL:
        findings.add(
            WARNING,
            "images that are shown much smaller than they are",
            f"{image:.0f} px at {side} px (INPUT.MIN_SIZE_TEST), where the median box is {box:.0f} px",
            "set INPUT.MIN_SIZE_TRAIN, INPUT.MIN_SIZE_TEST and MODEL.ANCHOR_GENERATOR.SIZES, or take the recipe "
            "that moco-det benchmark own writes",
        )


def map_records(records: Sequence[dict], use: Use, findings: Findings, seconds: float = SECONDS) -> None:
    """Map records as detectron2's mapper does, without an image and without augmentation.

    It takes what the rules above let pass, and finds what they do not know; where the seconds end before the
    records, the rest is a random part.
    """
    order = list(range(len(records)))
    random.Random(0).shuffle(order)
    end = time.monotonic() + seconds
    for number in order:
        if time.monotonic() > end:
            break
        record = records[number]
        size = (record.get("height", 1), record.get("width", 1))
        try:
            objects = [
                utils.transform_instance_annotations(_wanted(annotation, use), T.TransformList([]), size)
                for annotation in record.get("annotations", ())
                if annotation.get("iscrowd", 0) == 0
            ]
            utils.annotations_to_instances(objects, size, mask_format=use.masks or "polygon")
        except Exception as error:  # whatever malformed values lead to
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            findings.add(
                FAULT, "record that cannot be mapped", f"{os.path.basename(record['file_name'])} ({reason})"
            )


def _wanted(annotation: dict, use: Use) -> dict:
    """A copy of an annotation without what the mapper drops."""
    dropped = [key for key, used in (("segmentation", use.masks), ("keypoints", use.keypoints)) if not used]
    return {key: copy.copy(value) for key, value in annotation.items() if key not in dropped}


def _warn_of_masks(masks: collections.Counter, metadata: Metadata, findings: Findings) -> None:
    """What a run that trains masks would stop at, where it is not known whether one is meant."""
    if metadata.evaluator_type == "coco" and masks["NoneType"]:
        findings.add(
            WARNING, "object without a mask, of use for boxes alone", f"{masks['NoneType']:,} objects"
        )
    if masks["dict"]:
        findings.add(WARNING, f"run-length mask; to train on it {BITMASK}", f"{masks['dict']:,} objects")


def _fault(annotation: dict, classes: int, use: Use) -> tuple[str, str] | None:
    """What is wrong with an object (or the first of it), and how to fix it."""
    box = annotation.get("bbox")
    if box is None:
        return "object without a box", "give each annotation a bbox"
    try:
        whole = len(box) in (4, 5) and all(map(math.isfinite, box))  # 5: with an angle
    except TypeError:  # words, or no list
        whole = False
    if not whole or "bbox_mode" not in annotation:
        return "box that is not four finite numbers with a bbox_mode", ""
    category = annotation.get("category_id")
    if not isinstance(category, int) or not 0 <= category < classes:
        return f"class number that is not 0 to {classes - 1}", ""
    if use.train and use.masks and (fault := _mask_fault(annotation.get("segmentation"), use.masks)):
        return fault
    points = annotation.get("keypoints") or ()
    if use.train and use.keypoints and len(points) != 3 * use.keypoints:
        return f"object without {use.keypoints} keypoints", "give each annotation 3 numbers a keypoint"
    return None


def _mask_fault(mask: object, mask_format: str) -> tuple[str, str] | None:
    if mask is None or (isinstance(mask, list) and not mask):
        return (
            "object without a mask, which the model is to learn",
            "take a recipe without masks (faster_rcnn_…, or MODEL.MASK_ON False), or label the masks",
        )
    if isinstance(mask, list) and all(isinstance(polygon, Sequence) for polygon in mask):
        bad = [polygon for polygon in mask if len(polygon) < 6 or len(polygon) % 2]
        return ("polygon of less than 3 points", "") if bad else None
    if mask_format == "polygon":
        return "run-length or bit mask where INPUT.MASK_FORMAT is polygon", BITMASK
    return None


def look_at_truth(metadata: Metadata, use: Use, findings: Findings) -> None:
    """Read the labels of a test set in COCO's format as the evaluator will."""
    truth = Truth(metadata.json_file)
    annotations = truth.dataset.get("annotations")
    if annotations is None:  # it is not measured
        return
    if not annotations:
        reason = "no object; leave the list of annotations out where there are no labels"
        findings.add(FAULT, "nothing to measure", reason)
    elif all(annotation["iscrowd"] for annotation in annotations):
        reason = f"all {len(annotations)} objects are iscrowd, which the metric leaves out"
        findings.add(FAULT, "nothing to measure", reason, _NO_CROWD)
    for annotation in annotations:
        where = f"annotation {annotation.get('id')} of image {annotation.get('image_id')}"
        if use.keypoints and len(annotation.get("keypoints") or ()) != 3 * use.keypoints:
            findings.add(FAULT, f"test object without {use.keypoints} keypoints", where)
        if not use.masks:
            continue
        try:
            if not annotation.get("segmentation"):
                raise ValueError("no segmentation")
            truth.annToRLE(annotation)
        except Exception as error:  # of a C extension that says what it likes
            findings.add(
                FAULT,
                "test object without a mask that can be measured",
                f"{where} ({' '.join(str(error).split())})",
                "take a recipe without masks (faster_rcnn_…, or MODEL.MASK_ON False), or label the masks",
            )
    if truth.filled:
        counts = ", ".join(f"{name} of {count}" for name, count in truth.filled.items())
        findings.add(WARNING, "field that the metric cannot use as it is, filled in for it", counts)


def as_key(use: Use) -> str:
    """The use as a word, for a file's name."""
    return json.dumps(vars(use), sort_keys=True)
