"""The PASCAL VOC 2012 layout for semantic segmentation: an indexed PNG a JPEG, and a list of names a split."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from moco_det.toyworld.layouts.folders import save_jpeg
from moco_det.toyworld.scenes import Scene

# The splits share the folder of images, so their names must differ, also after a split has grown.
FIRST_NUMBER = {"train_aug": 1, "val": 500_001}
# As in the real set: SBD's additional annotations stand apart.
FOLDER = {"train_aug": "SegmentationClassAug", "val": "SegmentationClass"}
VOID = 255


def write_voc_segmentation(root: Path, split: str, classes: Sequence[str], scenes: Iterable[Scene]) -> None:
    """Write one split.

    Args:
        root: the VOC2012 folder; may hold another split already.
        split: ``"train_aug"`` or ``"val"``.
        classes: all classes, in the order of their labels, which start at 1; 0 is the background.
        scenes: what to write.
    """
    for name in ("JPEGImages", FOLDER[split], "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True, exist_ok=True)
    names = []
    for number, scene in enumerate(scenes, start=FIRST_NUMBER[split]):
        names.append(f"2012_{number:06d}")
        save_jpeg(scene.image, root / "JPEGImages" / f"{names[-1]}.jpg")
        # With the colors that the real files have: a reader that looks at them and not at the indices is wrong.
        image = Image.fromarray(label_image(scene, classes))
        image.putpalette(palette().tobytes())
        image.save(root / FOLDER[split] / f"{names[-1]}.png")
    (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def label_image(scene: Scene, classes: Sequence[str]) -> np.ndarray:
    """S x S, uint8: the class of each pixel, and VOID along the outline of every object."""
    labels = np.zeros(scene.image.shape[:2], dtype=np.uint8)
    objects = np.zeros(labels.shape, dtype=int)
    for number, placed in enumerate(scene.objects, start=1):
        labels[placed.visible] = 1 + classes.index(placed.category)
        objects[placed.visible] = number
    outline = np.zeros(labels.shape, dtype=bool)
    rows, columns = objects[1:] != objects[:-1], objects[:, 1:] != objects[:, :-1]
    outline[1:] |= rows
    outline[:-1] |= rows
    outline[:, 1:] |= columns
    outline[:, :-1] |= columns
    labels[outline] = VOID
    return labels


def palette() -> np.ndarray:
    """VOC's colors, 256 x 3, uint8: bits 0, 3, 6 of an index make its red from the top bit on, and so on."""
    index = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = index >> (3 * place + channel) & 1
            colors[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colors
