"""I, U and V drawn on a picture, three panels side by side: of annotated points, or of whole detected people."""

from collections.abc import Sequence

import matplotlib
import numpy as np

from moco_densepose.charts import BOX_UNITS, NUM_CHARTS
from moco_densepose.gps import LEVELS, Detection

# Share of a color in a pixel of the body.
OPACITY = 0.75


def chart_colors() -> np.ndarray:
    """NUM_CHARTS + 1 x 3, in [0, 255]: neighbors in number are far apart in hue. Background is black."""
    hues = (np.arange(NUM_CHARTS) * 7 % NUM_CHARTS) / NUM_CHARTS
    hsv = np.stack([hues, np.full(NUM_CHARTS, 0.8), np.where(np.arange(NUM_CHARTS) % 2, 1.0, 0.75)], axis=1)
    return np.concatenate([np.zeros((1, 3)), 255 * matplotlib.colors.hsv_to_rgb(hsv)])


def _coordinate_colors(values: np.ndarray) -> np.ndarray:
    """Colors of U or V in [0, 1]: from blue (0) to yellow (1)."""
    return 255 * matplotlib.colormaps["viridis"](values)[..., :3]


def draw_points(image: np.ndarray, annotations: Sequence[dict], radius: int = 1) -> np.ndarray:
    """Annotated points as squares.

    Args:
        image: H x W x 3, uint8, RGB.
        annotations: as in COCO's files, bbox in x, y, width, height; people without dense pose are passed over.
        radius: a square's side is twice this and 1, in pixels.

    Returns:
        H x 3 W x 3, uint8: I, U, V.
    """
    panels = [_faded(image) for _ in range(3)]
    for person in annotations:
        if "dp_x" not in person:
            continue
        x, y, width, height = person["bbox"]
        columns = (x + np.array(person["dp_x"]) * width / BOX_UNITS).astype(int)
        rows = (y + np.array(person["dp_y"]) * height / BOX_UNITS).astype(int)
        colors = (
            chart_colors()[np.array(person["dp_I"], dtype=int)],
            *(_coordinate_colors(np.array(person[f"dp_{name}"])) for name in "UV"),
        )
        for panel, of_points in zip(panels, colors, strict=True):
            for row, column, color in zip(rows, columns, of_points, strict=True):
                top, left = max(row - radius, 0), max(column - radius, 0)
                panel[top : row + radius + 1, left : column + radius + 1] = color
    return np.concatenate(panels, axis=1).round().astype(np.uint8)


def draw_detections(image: np.ndarray, detections: Sequence[Detection]) -> np.ndarray:
    """Detected people, the best in front; as :func:`draw_points`."""
    panels = [_faded(image) for _ in range(3)]
    for detection in sorted(detections, key=lambda d: d.score):
        label, u, v = detection.iuv
        # A part of the box may lie beyond the image.
        left, top = int(detection.box[0]), int(detection.box[1])
        rows, columns = np.nonzero(label)
        inside = (0 <= rows + top) & (rows + top < len(image)) & (0 <= columns + left)
        inside &= columns + left < image.shape[1]
        rows, columns = rows[inside], columns[inside]
        colors = (
            chart_colors()[label[rows, columns]],
            *(_coordinate_colors(values[rows, columns] / LEVELS) for values in (u, v)),
        )
        for panel, of_pixels in zip(panels, colors, strict=True):
            place = rows + top, columns + left
            panel[place] = (1 - OPACITY) * image[place] + OPACITY * of_pixels
    return np.concatenate(panels, axis=1).round().astype(np.uint8)


def _faded(image: np.ndarray) -> np.ndarray:
    """In gray, so that the colors stand out; H x W x 3, float."""
    return image.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.8
