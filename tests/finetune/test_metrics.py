"""The metrics in use, through the real reader: a perfect prediction scores all, a shifted one does not."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances, polygons_to_bitmask

from moco_det.finetune.evaluators import build_evaluator
from moco_det.model_zoo import get_config


def predictions(record, shift):
    """The labels of one image as a detector gives them, moved right by a fraction of each box's width."""
    annotations = record["annotations"]
    found = Instances((record["height"], record["width"]))
    boxes = torch.tensor([BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations])
    widths = boxes[:, 2] - boxes[:, 0]
    move = shift * widths[:, None]
    found.pred_boxes = Boxes(boxes + move * torch.tensor([1, 0, 1, 0]))
    found.pred_classes = torch.tensor([a["category_id"] for a in annotations])
    found.scores = torch.linspace(0.9, 0.8, len(annotations))
    if "segmentation" in annotations[0]:
        masks = [polygons_to_bitmask(a["segmentation"], *found.image_size) for a in annotations]
        moved = [np.roll(mask, round(by.item()), axis=1) for mask, by in zip(masks, move, strict=True)]
        found.pred_masks = torch.from_numpy(np.stack(moved))
    if "keypoints" in annotations[0]:
        points = torch.tensor([a["keypoints"] for a in annotations]).reshape(len(annotations), -1, 3)
        found.pred_keypoints = points + move[:, None] * torch.tensor([1, 0, 0])
    return found


def score(recipe, folder, shift):
    cfg = get_config(recipe, "random")
    cfg.OUTPUT_DIR = str(folder)
    name = cfg.DATASETS.TEST[0]
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [{"instances": predictions(record, shift)}])
    return evaluator.evaluate()


# A box that is moved by a quarter of its width has an IoU of 0.6 with its place. Points have no IoU: at an eighth
# of the width, their similarity (OKS) is about 0.7.
@pytest.mark.parametrize(
    ("recipe", "metric", "shift"),
    [
        ("toy/faster_rcnn_R_18_FPN", "bbox", 1 / 4),
        ("toy/mask_rcnn_R_18_FPN", "bbox", 1 / 4),
        ("toy/mask_rcnn_R_18_FPN", "segm", 1 / 8),
        ("toy/keypoint_rcnn_R_18_FPN", "bbox", 1 / 4),
        ("toy/keypoint_rcnn_R_18_FPN", "keypoints", 1 / 8),
    ],
)
def test_a_perfect_prediction_scores_100_and_a_shifted_one_less(tmp_path, recipe, metric, shift):
    perfect, shifted = (score(recipe, tmp_path, by)[metric] for by in (0, shift))
    for ap in ("AP", "AP50", "AP75"):
        assert perfect[ap] == pytest.approx(100)
    assert shifted["AP50"] > 50 > shifted["AP"] and shifted["AP75"] < 25
