"""detectron2's AP of PASCAL VOC for XML files as users write them.

The original opens fields that it does not use, takes whole numbers only and no year but 2007 and 2012. Here it
gets a copy of the labels in which every image and class has a number for its name (names may hold blanks and
slashes) and coordinates are rounded to whole pixels.
"""

import atexit
import functools
import logging
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator

from moco_det.data.datasets.voc_files import SIDES, list_file, read_split, read_xml, xml_file


class VocEvaluator(PascalVOCDetectionEvaluator):
    """Mean AP over IoU .5 to .95, and AP50 and AP75; by the 11-point rule where the metadata's year is 2007."""

    def __init__(self, name: str):
        meta = MetadataCatalog.get(name)
        # Not the original's: it asserts the year.
        self._dataset_name = name
        self._is_2007 = str(meta.get("year")) == "2007"
        self._cpu_device = torch.device("cpu")
        self._logger = logging.getLogger(__name__)
        self._numbers = {image: number for number, image in enumerate(read_split(meta.dirname, meta.split))}
        self._classes = tuple(meta.thing_classes)
        self._class_names = [str(number) for number in range(len(self._classes))]
        self._predictions = defaultdict(list)
        self._folder, self._split = meta.dirname, meta.split

    def process(self, inputs, outputs):
        numbered = [image | {"image_id": self._numbers[image["image_id"]]} for image in inputs]
        super().process(numbered, outputs)

    def evaluate(self):
        changed = os.stat(list_file(self._folder, self._split)).st_mtime_ns
        copy = _copy_labels(self._folder, self._split, self._classes, changed)
        self._anno_file_template = os.path.join(copy, "{}.xml")
        self._image_set_path = os.path.join(copy, "list.txt")
        return super().evaluate()


@functools.cache
def _copy_labels(folder: str, split: str, classes: tuple[str, ...], changed: int) -> str:
    """A folder that lives as long as this process: detectron2 keeps what it read of a file, by the file's name."""
    copy = tempfile.mkdtemp(prefix="voc_labels_")
    # Not a TemporaryDirectory: from Python 3.13 on a forked process forgets what is registered, and removes it.
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    names = read_split(folder, split)
    for number, name in enumerate(names):
        _, objects = read_xml(xml_file(folder, name))
        root = ET.Element("annotation")
        for entry in objects:
            child = ET.SubElement(root, "object")
            fields = {"name": classes.index(entry["name"]), "pose": "", "truncated": 0}
            for tag, value in {**fields, "difficult": entry["difficult"]}.items():
                ET.SubElement(child, tag).text = str(value)
            box = ET.SubElement(child, "bndbox")
            for side, value in zip(SIDES, entry["box"], strict=True):
                ET.SubElement(box, side).text = str(int(value + 0.5))
        ET.ElementTree(root).write(os.path.join(copy, f"{number}.xml"))
    Path(copy, "list.txt").write_text("".join(f"{number}\n" for number in range(len(names))))
    return copy
