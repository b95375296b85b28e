"""Label images of semantic segmentation: a number for each pixel."""

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image


def read_labels(path: str, dtype: type = np.uint8) -> np.ndarray:
    """A label image as the indices that are stored in it.

    detectron2's own readers turn the palette of VOC's files into gray values, or fail on numpy 2.

    Returns:
        H x W, writable.

    Raises:
        ValueError: the file holds colors, not indices.
    """
    with PathManager.open(path, "rb") as file:
        image = Image.open(file)
        if image.mode not in ("L", "P"):
            raise ValueError(
                f"label image {path!r} has the mode {image.mode}; expected indices (mode P or L), with 255 where "
                "there is no class"
            )
        return np.array(image, dtype=dtype)
