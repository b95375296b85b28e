"""Data sets in the shape of what labeling tools write, small, with faults to plant."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64, 48  # width, height
CLASSES = ("bird", "fruit", "vehicle")


def draw(path: Path, seed: int) -> None:
    """A photograph-like image: smooth noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize(SIZE, Image.BICUBIC).save(path)


def boxes_of(number: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Two objects of an image: class, and x, y, width, height."""
    return [(number % 3, (4 + number, 5, 20, 15)), ((number + 1) % 3, (30, 20 - number, 25, 20))]


def coco(root: Path, split: str, count: int = 4, start: int = 1, **content) -> tuple[str, str]:
    """A label file and its folder of images; ``content`` replaces lists of the file."""
    images, annotations = [], []
    for number in range(count):
        name = f"{split}{number}.jpg"
        draw(root / "images" / name, 10 * start + number)
        images.append({"id": number + start, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for category, (x, y, w, h) in boxes_of(number):
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + start,
                    "category_id": category + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    file = root / f"{split}.json"
    file.write_text(json.dumps(whole | content))
    return str(file), str(root / "images")


def edit(file: str, change) -> None:
    """Change a label file in place."""
    content = json.loads(Path(file).read_text())
    change(content)
    Path(file).write_text(json.dumps(content))


def voc(
    root: Path, split: str, count: int = 4, fields=("pose", "truncated", "difficult"), scale: float = 1
) -> str:
    """A folder in VOC's layout."""
    for number in range(count):
        name = f"{split}{number}"
        draw(root / "JPEGImages" / f"{name}.jpg", number)
        tree = ET.Element("annotation")
        size = ET.SubElement(tree, "size")
        ET.SubElement(size, "width").text, ET.SubElement(size, "height").text = map(str, SIZE)
        for category, (x, y, w, h) in boxes_of(number):
            entry = ET.SubElement(tree, "object")
            ET.SubElement(entry, "name").text = CLASSES[category]
            for field in fields:
                ET.SubElement(entry, field).text = "0"
            box = ET.SubElement(entry, "bndbox")
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + w, y + h), strict=True):
                ET.SubElement(box, side).text = str(value + 1 if scale == 1 else value + scale)
        (root / "Annotations").mkdir(parents=True, exist_ok=True)
        ET.ElementTree(tree).write(root / "Annotations" / f"{name}.xml")
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{split}{n}\n" for n in range(count)))
    return str(root)


def semantic(root: Path, split: str, values=(0, 1, 2, 3), count: int = 4, mode: str = "L") -> tuple[str, str]:
    """Images and label images of vertical stripes of the values."""
    for number in range(count):
        draw(root / split / "images" / f"{number}.jpg", number)
        stripes = np.array(values, dtype=np.uint8)[np.arange(SIZE[0]) * len(values) // SIZE[0]]
        labels = Image.fromarray(np.tile(stripes, (SIZE[1], 1))).convert(mode)
        (root / split / "labels").mkdir(parents=True, exist_ok=True)
        labels.save(root / split / "labels" / f"{number}.png")
    return str(root / split / "images"), str(root / split / "labels")
