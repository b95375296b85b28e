"""Plain folders of JPEGs, without annotation: unlabeled images, and the classes of a classification set."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from moco_det.toyworld.scenes import Scene

JPEG_QUALITY = 92


def save_jpeg(image: np.ndarray, path: Path) -> None:
    """Write an RGB image (H x W x 3, uint8) as every layout does."""
    Image.fromarray(image).save(path, quality=JPEG_QUALITY)


def write_folder(folder: Path, scenes: Iterable[Scene]) -> None:
    """Write ``folder/000000.jpg`` and so on."""
    folder.mkdir(parents=True)
    for index, scene in enumerate(scenes):
        save_jpeg(scene.image, folder / f"{index:06d}.jpg")
