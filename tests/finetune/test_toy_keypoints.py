"""The toy keypoints as detectron2 reads and mirrors them, and what is refused before a keypoint run."""

import copy

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T

from moco_det.data.datasets.toy_classes import TOY_KEYPOINTS
from moco_det.finetune.datasets import check_datasets
from moco_det.model_zoo import get_config

TOY = ("toy_keypoints_train", "toy_keypoints_val")


def points_of(record):
    return np.array([a["keypoints"] for a in record["annotations"]]).reshape(-1, len(TOY_KEYPOINTS), 3)


def test_same_boxes_as_the_instances_but_one_category():
    for points, boxes in zip(TOY, ("toy_coco_train", "toy_coco_val"), strict=True):
        assert MetadataCatalog.get(points).thing_classes == ["object"]
        for a, b in zip(DatasetCatalog.get(points), DatasetCatalog.get(boxes), strict=True):
            assert a["file_name"] == b["file_name"]
            assert [o["bbox"] for o in a["annotations"]] == [o["bbox"] for o in b["annotations"]]
            assert {o["category_id"] for o in a["annotations"]} == {0}


def test_visible_points_lie_in_the_middle_of_pixels_of_the_box():
    for record in DatasetCatalog.get("toy_keypoints_train"):
        for annotation, points in zip(record["annotations"], points_of(record), strict=True):
            x, y, width, height = annotation["bbox"]
            seen = points[points[:, 2] == 2, :2]
            assert (seen % 1 == 0.5).all()
            assert (seen > (x, y)).all() and (seen < (x + width, y + height)).all()


def test_a_mirror_swaps_left_and_right():
    cfg = get_config("toy/keypoint_rcnn_R_18_FPN")
    mapper = DatasetMapper(cfg, is_train=True, augmentations=[T.RandomFlip(prob=1.0)])
    left, right = TOY_KEYPOINTS.index("left"), TOY_KEYPOINTS.index("right")
    compared = 0
    for record in DatasetCatalog.get("toy_keypoints_train"):
        before = points_of(record)
        after = mapper(copy.deepcopy(record))["instances"].gt_keypoints.tensor.numpy()
        for old, new in zip(before, after, strict=True):
            if old[left, 2] and old[right, 2]:
                assert new[left].tolist() == [record["width"] - old[right, 0], *old[right, 1:]]
                assert new[left, 0] < new[right, 0]
                compared += 1
    assert compared > 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            ("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 17),
            "NUM_KEYPOINTS is 17, but .* has 5 keypoints .*; give",
        ),
        (("TEST.KEYPOINT_OKS_SIGMAS", []), "OKS_SIGMAS stands for 17 keypoints .*have 5; give one sigma"),
        (("TEST.KEYPOINT_OKS_SIGMAS", [0.1] * 4), "OKS_SIGMAS stands for 4 keypoints"),
        (("MODEL.ROI_HEADS.NUM_CLASSES", 8), "NUM_CLASSES is 8, but data set 'toy_keypoints_val' has 1"),
    ],
)
def test_numbers_that_do_not_fit_the_data_are_refused(change, match):
    cfg = get_config("toy/keypoint_rcnn_R_18_FPN")
    check_datasets(cfg, TOY)
    cfg.merge_from_list(list(change))
    with pytest.raises(ValueError, match=match):
        check_datasets(cfg, ("toy_keypoints_val",))


def test_data_without_keypoints_are_refused():
    cfg = get_config("toy/keypoint_rcnn_R_18_FPN")
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 12
    with pytest.raises(ValueError, match="data set 'toy_coco_val' has no keypoints"):
        check_datasets(cfg, ("toy_coco_val",))
