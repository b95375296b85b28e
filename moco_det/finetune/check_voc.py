"""The files and labels of data sets in the layouts of PASCAL VOC and Cityscapes, for tools/check_datasets.py.

Of images and label images only the existence is checked.
"""

import os
from collections import Counter

from detectron2.data import Metadata

from moco_det.data.datasets.downloads import how_to_get
from moco_det.data.datasets.segmentation import CITYSCAPES_LABELS, load_voc_sem_seg
from moco_det.data.datasets.voc_files import images_by_name, read_split, read_xml, xml_file
from moco_det.finetune.check_findings import FAULT, MISSING, WARNING, Files, Findings

IMAGE_SUFFIX = "_leftImg8bit.png"


def check_voc(metadata: Metadata, files: Files, findings: Findings) -> None:
    """Images, XML files and their content of a split for detection."""
    names = read_split(metadata.dirname, metadata.split)
    _note_repeated(names, findings)
    findings.num_images = len(names)
    path_of = images_by_name(metadata.dirname)
    instances, measured = Counter(), Counter()
    for name in names:
        image = path_of.get(name, os.path.join(metadata.dirname, "JPEGImages", f"{name}.jpg"))
        _need(image, "image", files, findings)
        labels = xml_file(metadata.dirname, name)
        if _need(labels, "XML file", files, findings):
            objects = _check_xml(labels, metadata.thing_classes, findings)
            instances.update(entry["name"] for entry in objects)
            measured.update(entry["name"] for entry in objects if not entry["difficult"])
    for name in metadata.thing_classes:
        if not instances[name]:
            findings.add(WARNING, "class without an instance (in a test set, its AP counts as 0)", name)
        elif not measured[name]:
            findings.add(WARNING, "class whose objects are all difficult, which the metric leaves out", name)


def _need(path: str, kind: str, files: Files, findings: Findings) -> bool:
    if not files.has(path):
        findings.add(MISSING, kind, os.path.basename(path), how_to_get(findings.name, path))
        return False
    return True


def _note_repeated(names: list[str], findings: Findings) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            findings.add(FAULT, "name that the split's list holds more than once", name)


def _check_xml(path: str, classes: list[str], findings: Findings) -> list[dict]:
    """The objects in an XML file, read as the evaluator reads it."""
    example = os.path.basename(path)
    try:
        size, objects = read_xml(path)
    except ValueError as error:
        findings.add(FAULT, "XML file that cannot be read", f"{example} ({error.__cause__ or error})")
        return []
    if not objects:
        findings.add(WARNING, "image without annotation", example)
    for number, entry in enumerate(objects, start=1):
        place = f"object {number} of {example}"
        if entry["name"] not in classes:
            findings.add(FAULT, "class name that is not in the class list", f"{entry['name']!r} ({place})")
        x0, y0, x1, y1 = entry["box"]
        findings.add_box((x0 - 1, y0 - 1, x1, y1), size, place)  # VOC counts pixels from 1
        if any(value % 1 for value in entry["box"]):
            findings.add(WARNING, "coordinates with a fraction, which the metric rounds", place)
    return objects


def check_voc_sem_seg(metadata: Metadata, files: Files, findings: Findings) -> None:
    """Images and label images of a split for semantic segmentation."""
    records = load_voc_sem_seg(metadata.dirname, metadata.split)
    _note_repeated([record["image_id"] for record in records], findings)
    findings.num_images = len(records)
    for record in records:
        _need(record["file_name"], "image", files, findings)
        _need(record["sem_seg_file_name"], "label image", files, findings)


def check_cityscapes(metadata: Metadata, files: Files, findings: Findings) -> None:
    """The label files of each image, in the folders of the cities."""
    findings.num_images = 0
    for city in sorted(files.names(metadata.image_dir)):
        names = files.names(os.path.join(metadata.image_dir, city))
        for name in sorted(names) or [""]:
            if not name.endswith(IMAGE_SUFFIX):  # the reader asserts it
                findings.add(FAULT, "file in the images' folders that is no image", f"{city}/{name}")
                continue
            findings.num_images += 1
            stem = name.removesuffix(IMAGE_SUFFIX)
            for label in CITYSCAPES_LABELS[metadata.evaluator_type]:
                path = os.path.join(metadata.gt_dir, city, f"{stem}_gtFine_{label}")
                _need(path, f"file *_gtFine_{label}", files, findings)
    if not findings.num_images:
        example = os.path.join(metadata.image_dir, "<city>", f"*{IMAGE_SUFFIX}")
        findings.add(MISSING, "image", example, how_to_get(findings.name, example))
