"""Geodesic point similarity (GPS) between an annotated person and a detection, as the COCO protocol defines it.

``GPS = mean over annotated points of exp(-d^2 / (2 k^2))``: d is the geodesic distance between the annotated and
the predicted surface point, k the mean distance on the annotated point's body part. It is GPS, not GPSm.
"""

from dataclasses import dataclass

import numpy as np

from moco_densepose.body_tables import BodyTables
from moco_densepose.charts import BOX_UNITS, GROUP_OF_CHART

# A map stores U and V as round(255 U) would, but cut off, not rounded.
LEVELS = 255.0


@dataclass(frozen=True)
class Detection:
    """A detected person.

    Attributes:
        image_id: the image's id in the annotations.
        score: in [0, 1].
        box: x, y, width and height in pixels.
        iuv: 3 x H x W, uint8: I, 255 U and 255 V of each pixel of the box, whose width and height are cut to
            whole pixels (and at least 1).
    """

    image_id: int
    score: float
    box: tuple[float, float, float, float]
    iuv: np.ndarray


@dataclass(frozen=True)
class Person:
    """An annotated person.

    Attributes:
        box: x, y, width and height in pixels.
        x, y: K, place of the points in the box, from 0 to BOX_UNITS.
        closest: K, index of the body table's surface point; -1 where the annotation names no chart.
        scale: K, mean distance on the body part, in the table's unit.
    """

    box: tuple[float, float, float, float]
    x: np.ndarray
    y: np.ndarray
    closest: np.ndarray
    scale: np.ndarray


def read_person(annotation: dict, tables: BodyTables) -> Person:
    """What the metric needs of an annotation that has dp_x, dp_y, dp_I, dp_U and dp_V."""
    label = np.array(annotation["dp_I"], dtype=np.int64)
    u, v, x, y = (np.array(annotation[f"dp_{name}"], dtype=np.float64) for name in "UVxy")
    closest = tables.closest_points(label, u, v)
    scale = tables.mean_distances[GROUP_OF_CHART[tables.label[closest]]]
    return Person(tuple(annotation["bbox"]), x, y, closest, scale)


def similarity(person: Person, detection: Detection, tables: BodyTables) -> float:
    """GPS, in [0, 1]. A point outside the box or predicted as background counts 0; no point inside gives 0."""
    # Cut off towards zero, as the protocol's code does: up to a pixel left of and above the box still counts.
    column, row = (
        (place * person.box[2 + axis] / BOX_UNITS + person.box[axis] - detection.box[axis]).astype(int)
        for axis, place in enumerate((person.x, person.y))
    )
    width, height = int(detection.box[2]), int(detection.box[3])
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    annotated = person.closest >= 0
    if not inside.any() or not annotated.any():
        return 0.0
    label, u, v = detection.iuv[:, np.where(inside, row, 0), np.where(inside, column, 0)].astype(np.int64)
    predicted = tables.closest_points(np.where(inside, label, 0), u / LEVELS, v / LEVELS)
    apart = tables.between(person.closest[annotated], predicted[annotated])
    return float(np.exp(-(apart**2) / (2 * person.scale[annotated] ** 2)).mean())
