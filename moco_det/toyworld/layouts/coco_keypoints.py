"""The COCO 2017 keypoint layout: the scenes of the instance layout, all objects of one category, with points."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moco_det.data.datasets.toy_classes import TOY_KEYPOINTS
from moco_det.toyworld.scenes import SceneObject

CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}
# COCO's flags: outside the image (and not labeled), hidden, visible.
OUTSIDE, HIDDEN, VISIBLE = 0, 1, 2


def keypoints_of(placed: SceneObject) -> list[int]:
    """x, y, flag of each of TOY_KEYPOINTS, one after the other; x and y are indices of pixels in the image.

    The points are those of the whole object, so some lie where another object or the border hides it.
    """
    height, width = placed.visible.shape
    numbers = []
    for x, y in _points(placed.sprite.mask) + (placed.left, placed.top):
        if not (0 <= x < width and 0 <= y < height):
            numbers += [0, 0, OUTSIDE]
        else:
            numbers += [int(x), int(y), VISIBLE if placed.visible[y, x] else HIDDEN]
    return numbers


def _points(mask: np.ndarray) -> np.ndarray:
    """x and y of each of TOY_KEYPOINTS in a mask (H x W, bool); K x 2, int."""
    ys, xs = np.nonzero(mask)
    pixels = np.stack([xs, ys], axis=1)
    found = {
        "top": _middle(pixels[ys == ys.min()]),
        "bottom": _middle(pixels[ys == ys.max()]),
        "left": _middle(pixels[xs == xs.min()]),
        "right": _middle(pixels[xs == xs.max()]),
        "center": pixels[((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()],
    }
    return np.stack([found[name] for name in TOY_KEYPOINTS])


def _middle(pixels: np.ndarray) -> np.ndarray:
    return pixels[len(pixels) // 2]


def write_keypoints(path: Path, instances: dict, keypoints: Sequence[list[int]]) -> None:
    """Write one split.

    Args:
        path: ``annotations/person_keypoints_<split>.json``; COCO's name, though nobody is in the pictures.
        instances: the content of the instance layout's file.
        keypoints: of each of its annotations, see :func:`keypoints_of`.
    """
    annotations = [
        annotation
        | {
            "category_id": CATEGORY["id"],
            "keypoints": points,
            "num_keypoints": sum(flag != OUTSIDE for flag in points[2::3]),
        }
        for annotation, points in zip(instances["annotations"], keypoints, strict=True)
    ]
    names = list(TOY_KEYPOINTS)
    center = names.index("center") + 1  # a skeleton counts from 1
    skeleton = [[center, number] for number in range(1, len(names) + 1) if number != center]
    categories = [CATEGORY | {"keypoints": names, "skeleton": skeleton}]
    path.write_text(json.dumps(instances | {"annotations": annotations, "categories": categories}))
