import json

import numpy as np
import pytest

from moco_det.data.datasets.toy_classes import TOY_KEYPOINT_FLIPS, TOY_KEYPOINTS
from moco_det.toyworld.art import Sprite
from moco_det.toyworld.layouts.coco_keypoints import HIDDEN, OUTSIDE, VISIBLE, keypoints_of
from moco_det.toyworld.scenes import SceneObject


def place(mask, left, top, hidden=(), size=10):
    """A sprite of this mask in an empty image, hidden at some pixels (x, y)."""
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[..., 3] = mask * 255
    visible = np.zeros((size, size), bool)
    for y, x in np.argwhere(mask):
        if 0 <= y + top < size and 0 <= x + left < size:
            visible[y + top, x + left] = (x + left, y + top) not in hidden
    return SceneObject(Sprite("bird", rgba), left, top, visible)


def named(numbers):
    return dict(zip(TOY_KEYPOINTS, np.reshape(numbers, (-1, 3)).tolist(), strict=True))


# A kite: its tips, and its center of mass.
KITE = np.array(
    [
        [0, 0, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0],
    ],
    bool,
)


def test_points_of_a_kite():
    assert named(keypoints_of(place(KITE, 3, 2))) == {
        "top": [5, 2, VISIBLE],
        "bottom": [5, 7, VISIBLE],
        "left": [3, 4, VISIBLE],
        "right": [7, 4, VISIBLE],
        "center": [5, 4, VISIBLE],
    }


def test_a_hidden_point_is_labeled_and_one_beyond_the_border_is_not():
    assert named(keypoints_of(place(KITE, -1, 2, hidden={(1, 4)}))) == {
        "top": [1, 2, VISIBLE],
        "bottom": [1, 7, VISIBLE],
        "left": [0, 0, OUTSIDE],
        "right": [3, 4, VISIBLE],
        "center": [1, 4, HIDDEN],
    }


def test_a_flat_side_has_its_point_in_the_middle_and_a_ring_has_its_center_on_itself():
    square = named(keypoints_of(place(np.ones((5, 5), bool), 0, 0)))
    assert square["top"] == [2, 0, VISIBLE] and square["left"] == [0, 2, VISIBLE]
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    x, y, flag = named(keypoints_of(place(ring, 0, 0)))["center"]
    assert ring[y, x] and flag == VISIBLE


def test_the_pairs_that_a_mirror_swaps_are_points():
    assert {name for pair in TOY_KEYPOINT_FLIPS for name in pair} == {"left", "right"} <= set(TOY_KEYPOINTS)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_the_file_is_that_of_the_instances_with_points(world, instances, split):
    found = json.loads((world / "coco" / "annotations" / f"person_keypoints_{split}.json").read_text())
    assert found["images"] == instances[split]["images"]
    (category,) = found["categories"]
    assert category["keypoints"] == list(TOY_KEYPOINTS)
    assert sorted(map(sorted, category["skeleton"])) == [[1, 5], [2, 5], [3, 5], [4, 5]]
    flags = []
    for points, instance in zip(found["annotations"], instances[split]["annotations"], strict=True):
        for key in ("id", "image_id", "bbox", "area", "segmentation", "iscrowd"):
            assert points[key] == instance[key]
        assert points["category_id"] == category["id"]
        assert len(points["keypoints"]) == 3 * len(TOY_KEYPOINTS)
        own = points["keypoints"][2::3]
        assert points["num_keypoints"] == sum(flag > 0 for flag in own) > 0
        flags += own
    assert {OUTSIDE, HIDDEN, VISIBLE} == set(flags)
