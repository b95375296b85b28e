"""The label images of a data set for semantic segmentation, read as the mapper and the evaluator read them."""

import os
import random
import time
from collections.abc import Sequence

import numpy as np
from detectron2.data import Metadata

from moco_det.data.decoding import open_image, orientation
from moco_det.data.label_images import read_labels
from moco_det.finetune.check_findings import FAULT, WARNING, Findings
from moco_det.finetune.classes import shown

# Seconds for the label images that are trained on; those of a test set are all read.
SECONDS = 30.0
_PER_CLASS = "write 0 for the first class, 1 for the second and so on"


def look_at_labels(
    records: Sequence[dict], metadata: Metadata, train: bool, findings: Findings, seconds: float = SECONDS
) -> None:
    """Note label images that cannot be read, and numbers that are no class; count the pixels of each class."""
    classes, ignored = list(metadata.stuff_classes), metadata.get("ignore_label", 255)
    pixels = np.zeros(256, dtype=np.int64)
    order = list(range(len(records)))
    random.Random(0).shuffle(order)
    end, looked = time.monotonic() + seconds, 0
    for number in order:
        if train and time.monotonic() > end:
            break
        looked += 1
        pixels += _count(records[number], len(classes), ignored, findings)
    if looked < len(order):
        findings.add(
            WARNING,
            "part of the label images only was looked at",
            f"{looked:,} of {len(order):,} in {seconds:g} s",
        )
    elif not findings.of(FAULT):
        _judge(pixels, classes, ignored, train, findings)


def _count(record: dict, classes: int, ignored: int, findings: Findings) -> np.ndarray:
    """The pixels of each number in a label image."""
    path = record["sem_seg_file_name"]
    name, none = os.path.basename(path), np.zeros(256, dtype=np.int64)
    if not os.path.lexists(path):
        return none  # noted as missing
    try:
        labels = read_labels(path)
    except Exception as error:  # as decoders raise
        findings.add(FAULT, "label image that cannot be read", f"{name} ({' '.join(str(error).split())})")
        return none
    _compare_sizes(record, labels.shape, name, findings)
    pixels = np.bincount(labels.ravel(), minlength=256)
    strange = [value for value in np.flatnonzero(pixels) if value >= classes and value != ignored]
    if strange:
        findings.add(
            FAULT,
            f"label that is no class (0 to {classes - 1}, or {ignored} for none)",
            f"{', '.join(map(str, strange[:5]))} in {name}",
            _PER_CLASS,
        )
    return pixels


def _compare_sizes(record: dict, shape: tuple[int, int], name: str, findings: Findings) -> None:
    try:
        with open_image(record["file_name"]) as image:
            size = image.size[::-1] if orientation(image) in (5, 6, 7, 8) else image.size
    except Exception:  # noted where images are looked at
        return
    if size[::-1] != shape:
        findings.add(
            FAULT,
            "label image of another size than its image",
            f"{name} has {shape[1]} x {shape[0]} pixels, its image {size[0]} x {size[1]}",
        )


def _judge(pixels: np.ndarray, classes: list[str], ignored: int, train: bool, findings: Findings) -> None:
    """What the numbers of pixels over the whole set say of a model that learns or is measured by them."""
    absent = [name for number, name in enumerate(classes) if not pixels[number]]
    there = len(classes) - len(absent)
    if there < min(2, len(classes)):
        found = ", ".join(str(value) for value in np.flatnonzero(pixels)) or "nothing"
        findings.add(
            FAULT,
            "labels of less than two classes, so that nothing is "
            + ("learned" if train else "measured (a mean over one class that is everywhere is 100)"),
            f"the label images hold {found}; {ignored} counts as no class",
            f"{_PER_CLASS}: masks of 0 and {ignored} need 1 in place of {ignored}",
        )
    elif absent:
        effect = "is never learned" if train else "is left out of the mean"
        findings.add(WARNING, f"class without a pixel, which {effect}", shown(absent))
