"""The files and labels of data sets in the layouts of PASCAL VOC and Cityscapes, for tools/check_datasets.py.

Of images and label images only the existence is checked.
"""

import os
import xml.etree.ElementTree as ET
from collections import Counter

from detectron2.data import Metadata

from moco_det.finetune.check_findings import FAULT, MISSING, WARNING, Files, Findings
from moco_det.finetune.dataset_sources import how_to_get
from moco_det.finetune.segmentation_datasets import CITYSCAPES_LABELS, load_voc_sem_seg

IMAGE_SUFFIX = "_leftImg8bit.png"
# The fields that detectron2's reader and evaluator open, and as what.
_SIZE = {"size/width": int, "size/height": int}
_BOX = {f"bndbox/{side}": float for side in ("xmin", "ymin", "xmax", "ymax")}
_FLAGS = {"truncated": int, "difficult": int}


def check_voc(metadata: Metadata, files: Files, findings: Findings) -> None:
    """Images, XML files and their content of a split for detection."""
    with open(os.path.join(metadata.dirname, "ImageSets", "Main", f"{metadata.split}.txt")) as file:
        names = [line.strip() for line in file if line.strip()]
    _note_repeated(names, findings)
    findings.images = len(names)
    instances = Counter()
    for name in names:
        image = os.path.join(metadata.dirname, "JPEGImages", f"{name}.jpg")
        _need(image, "image", files, findings)
        labels = os.path.join(metadata.dirname, "Annotations", f"{name}.xml")
        if _need(labels, "XML file", files, findings):
            instances.update(_check_xml(labels, metadata.thing_classes, findings))
    for name in metadata.thing_classes:
        if not instances[name]:
            findings.add(WARNING, "class without an instance (in a test set, its AP counts as 0)", name)


def _need(path: str, kind: str, files: Files, findings: Findings) -> bool:
    if not files.has(path):
        findings.add(MISSING, kind, os.path.basename(path), how_to_get(findings.name, path))
        return False
    return True


def _note_repeated(names: list[str], findings: Findings) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            findings.add(FAULT, "name that the split's list holds more than once", name)


def _check_xml(path: str, classes: list[str], findings: Findings) -> list[str]:
    """The classes of the objects in an XML file."""
    example = os.path.basename(path)
    try:
        root = ET.parse(path).getroot()
    except (ET.ParseError, ValueError, LookupError, OSError) as error:  # LookupError: of an unknown encoding
        findings.add(FAULT, "XML file that cannot be read", f"{example} ({error})")
        return []
    size = _numbers(root, _SIZE, example, findings)
    objects = root.findall("object")
    if not objects:
        findings.add(WARNING, "image without annotation", example)
    found = []
    for number, entry in enumerate(objects, start=1):
        place = f"object {number} of {example}"
        for tag in ("name", "pose"):
            if entry.find(tag) is None:
                findings.add(FAULT, f"XML without the field {tag}", place)
        name = entry.findtext("name")
        if name is not None and name not in classes:
            findings.add(FAULT, "class name that is not in the class list", f"{name!r} ({place})")
        found.append(name)
        _numbers(entry, _FLAGS, place, findings)
        box = _numbers(entry, _BOX, place, findings)
        if size and box:
            x0, y0, x1, y1 = box
            findings.add_box((x0 - 1, y0 - 1, x1, y1), size, place)  # VOC counts pixels from 1
    return found


def _numbers(entry: ET.Element, fields: dict[str, type], place: str, findings: Findings) -> list:
    """The values of fields; empty when one is not there or no number."""
    values = []
    for tag, kind in fields.items():
        text = entry.findtext(tag)
        if text is None:
            findings.add(FAULT, f"XML without the field {tag}", place)
            continue
        try:
            values.append(kind(text))
        except ValueError:
            findings.add(FAULT, f"XML field {tag} that is not a number", f"{text!r} ({place})")
    return values if len(values) == len(fields) else []


def check_voc_sem_seg(metadata: Metadata, files: Files, findings: Findings) -> None:
    """Images and label images of a split for semantic segmentation."""
    records = load_voc_sem_seg(metadata.dirname, metadata.split)
    _note_repeated([record["image_id"] for record in records], findings)
    findings.images = len(records)
    for record in records:
        _need(record["file_name"], "image", files, findings)
        _need(record["sem_seg_file_name"], "label image", files, findings)


def check_cityscapes(metadata: Metadata, files: Files, findings: Findings) -> None:
    """The label files of each image, in the folders of the cities."""
    findings.images = 0
    for city in sorted(files.names(metadata.image_dir)):
        images = files.names(os.path.join(metadata.image_dir, city))
        for name in sorted(images) or [""]:
            if not name.endswith(IMAGE_SUFFIX):  # the reader asserts it
                findings.add(FAULT, "file in the images' folders that is no image", f"{city}/{name}")
                continue
            findings.images += 1
            stem = name.removesuffix(IMAGE_SUFFIX)
            for label in CITYSCAPES_LABELS[metadata.evaluator_type]:
                path = os.path.join(metadata.gt_dir, city, f"{stem}_gtFine_{label}")
                _need(path, f"file *_gtFine_{label}", files, findings)
    if not findings.images:
        example = os.path.join(metadata.image_dir, "<city>", f"*{IMAGE_SUFFIX}")
        findings.add(MISSING, "image", example, how_to_get(findings.name, example))
