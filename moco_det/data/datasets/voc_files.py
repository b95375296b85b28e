"""Labels in VOC's layout, as users write them: with fractions, and without fields that nothing uses."""

import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from detectron2.structures import BoxMode

from moco_det.data.image_files import EXTENSIONS

SIDES = ("xmin", "ymin", "xmax", "ymax")


def list_file(folder: str, split: str) -> str:
    """The file that lists the images of a split."""
    return os.path.join(folder, "ImageSets", "Main", f"{split}.txt")


def read_split(folder: str, split: str) -> list[str]:
    """The names in a split's list. A line may hold more after the name, as in VOC's own lists for each class.

    Raises:
        ValueError: there is no name.
    """
    path = list_file(folder, split)
    with open(path, encoding="utf-8-sig") as file:
        lines = [line.strip() for line in file if line.strip()]
    if not lines:
        raise ValueError(f"{path!r} is empty; expected one name a line")
    # A name may hold spaces.
    return [line if os.path.exists(xml_file(folder, line)) else line.split()[0] for line in lines]


def xml_file(folder: str, name: str) -> str:
    """The labels of an image."""
    return os.path.join(folder, "Annotations", f"{name}.xml")


def read_xml(path: str) -> tuple[tuple[int, int], list[dict]]:
    """Read an XML file.

    Returns:
        (width, height), and the objects: ``name``, ``difficult`` (0 where it is not said), and ``box``, the four
        numbers as they stand (pixels counted from 1, in the order SIDES).

    Raises:
        ValueError: names the file and what is wrong in it.
    """
    try:
        root = ET.parse(path).getroot()
        size = tuple(int(_number(root, f"size/{side}")) for side in ("width", "height"))
        return size, [_object(entry) for entry in root.iter("object")]
    except (ET.ParseError, ValueError, LookupError, OSError) as error:  # LookupError: of an unknown encoding
        raise ValueError(f"{path!r}: {error}") from error


def _object(entry: ET.Element) -> dict:
    name = entry.findtext("name", "").strip()
    if not name:
        raise ValueError("an object has no name")
    if (boxes := len(entry.findall("bndbox"))) > 1:
        raise ValueError(f"an object has {boxes} boxes; expected one")
    return {
        "name": name,
        "difficult": int(_number(entry, "difficult")) if entry.findtext("difficult") else 0,
        "box": [_number(entry, f"bndbox/{side}") for side in SIDES],
    }


def _number(entry: ET.Element, tag: str) -> float:
    text = entry.findtext(tag)
    if text is None:
        raise ValueError(f"there is no <{tag.replace('/', '><')}>")
    number = float(text) if _is_number(text) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"<{tag.rpartition('/')[2]}> holds {text!r}, which is no number")
    return number


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def load_voc(folder: str, split: str, classes: Sequence[str]) -> list[dict]:
    """Records of a split as detectron2's reader gives them; images may be of any known format.

    Raises:
        ValueError: a file is missing, cannot be read, or names a class that is not in ``classes``.
    """
    path_of = images_by_name(folder)
    numbers = {name: number for number, name in enumerate(classes)}
    records = []
    for name in read_split(folder, split):
        path = xml_file(folder, name)
        (width, height), objects = read_xml(path)
        for entry in objects:
            if entry["name"] not in numbers:
                raise ValueError(
                    f"{path!r} names the class {entry['name']!r}; expected one of {list(classes)}"
                )
        records.append(
            {
                "file_name": path_of.get(name, os.path.join(folder, "JPEGImages", f"{name}.jpg")),
                "image_id": name,
                "height": height,
                "width": width,
                "annotations": [
                    {
                        "category_id": numbers[entry["name"]],
                        # A box from 1 to the width covers the whole image: in coordinates, from 0.
                        "bbox": [entry["box"][0] - 1, entry["box"][1] - 1, *entry["box"][2:]],
                        "bbox_mode": BoxMode.XYXY_ABS,
                    }
                    for entry in objects
                ],
            }
        )
    return records


def images_by_name(folder: str) -> dict[str, str]:
    """The images of a folder in VOC's layout, by their names without extension; a JPEG before others."""
    found = [path for path in Path(folder, "JPEGImages").iterdir() if path.suffix.lower() in EXTENSIONS]
    return {path.stem: str(path) for path in sorted(found, key=lambda path: path.suffix == ".jpg")}
