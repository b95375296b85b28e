"""A mask as polygons, in the form that COCO stores and that has no holes of its own."""

import numpy as np
from contourpy import FillType, contour_generator


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Trace a mask.

    A hole is joined to its outer line by a cut that is walked there and back, so it stays a hole under
    the even-odd rule by which pycocotools fills polygons.

    Args:
        mask: H x W, bool.

    Returns:
        one polygon a connected part: x0, y0, x1, y1, … in pixels; pixel (0, 0) covers [0, 1] x [0, 1].
    """
    # A margin of background closes the lines at the border. Lines run midway between the centers of an inner
    # and an outer pixel, i.e. along the pixels' edges. Half a pixel from centers to coordinates, less the
    # margin of one, makes the - 0.5 below.
    values = np.pad(mask.astype(np.float32), 1)
    outlines, offsets = contour_generator(z=values, fill_type=FillType.OuterOffset).filled(0.5, np.inf)
    polygons = []
    for points, starts in zip(outlines, offsets, strict=True):
        outer, *holes = (points[i:j] for i, j in zip(starts[:-1], starts[1:], strict=True))
        for hole in holes:
            outer = _join(outer, hole)
        polygons.append((outer[:-1] - 0.5).ravel().tolist())
    return polygons


def outline(mask: np.ndarray) -> list[tuple[int, int]]:
    """The pixels along the outer border of a mask's largest connected part, in order; holes are passed over.

    Args:
        mask: H x W, bool, not empty.

    Returns:
        (x, y) of pixels; drawn as a polygon they fill the part.
    """
    values = np.pad(mask.astype(np.float32), 1)
    # Lines run just outside the centers of the border's pixels, so that rounding gives these.
    lines, offsets = contour_generator(z=values, fill_type=FillType.OuterOffset).filled(0.99, np.inf)
    outer = [line[: starts[1]] for line, starts in zip(lines, offsets, strict=True)]
    largest = max(outer, key=lambda line: np.ptp(line, axis=0).prod())
    points = [(int(x), int(y)) for x, y in np.round(largest).astype(int) - 1]
    return [point for point, before in zip(points[1:], points[:-1], strict=True) if point != before]


def _join(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Walk the outer line, go over to the hole where it is nearest, walk around it and come back.

    Both lines are closed (first point = last point), Nx2; so is the result.
    """
    distance = ((outer[:, None] - hole[None]) ** 2).sum(axis=2)
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    around = np.concatenate([hole[j:-1], hole[: j + 1]])
    return np.concatenate([outer[: i + 1], around, outer[i:]])
