"""The PASCAL VOC 2007 layout: one XML per JPEG, and a list of names per split."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

from moco_det.toyworld.layouts.folders import save_jpeg
from moco_det.toyworld.scenes import Scene, SceneObject

# The splits share their folders, so their names must differ, also after a split has grown.
FIRST_NUMBER = {"trainval": 1, "test": 500_001}
# An object that shows less than this share is "truncated", or even "difficult": the metric passes over those.
TRUNCATED_BELOW, DIFFICULT_BELOW = 0.95, 0.5


def write_voc(root: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Write one split.

    Args:
        root: the VOC2007 folder; may hold another split already.
        split: ``"trainval"`` or ``"test"``.
        scenes: what to write.
    """
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / name).mkdir(parents=True, exist_ok=True)
    names = []
    for number, scene in enumerate(scenes, start=FIRST_NUMBER[split]):
        name = f"{number:06d}"
        names.append(name)
        save_jpeg(scene.image, root / "JPEGImages" / f"{name}.jpg")
        tree = ET.ElementTree(_annotation(name, scene))
        ET.indent(tree)
        tree.write(root / "Annotations" / f"{name}.xml", encoding="utf-8")
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def _annotation(name: str, scene: Scene) -> ET.Element:
    root = ET.Element("annotation")
    _add(root, folder="VOC2007", filename=f"{name}.jpg")
    _add(ET.SubElement(root, "source"), database="moco_det toy world")
    height, width, depth = scene.image.shape
    _add(ET.SubElement(root, "size"), width=width, height=height, depth=depth)
    _add(root, segmented=0)
    for placed in scene.objects:
        _add_object(root, placed)
    return root


def _add_object(root: ET.Element, placed: SceneObject) -> None:
    share = placed.visible_share
    entry = ET.SubElement(root, "object")
    _add(
        entry,
        name=placed.category,
        pose="Unspecified",
        truncated=int(share < TRUNCATED_BELOW),
        difficult=int(share < DIFFICULT_BELOW),
    )
    # VOC counts pixels from 1 and includes the last one.
    x0, y0, x1, y1 = placed.box
    _add(ET.SubElement(entry, "bndbox"), xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)


def _add(parent: ET.Element, **values: str | int) -> None:
    for tag, value in values.items():
        ET.SubElement(parent, tag).text = str(value)
