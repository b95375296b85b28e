"""The toy recipes of the paper's detection tasks: they train, and are measured by the task's reader and metric."""

import math

import pytest

from moco_det.engine.record import read_run_record


@pytest.mark.parametrize(
    ("recipe", "metrics"),
    [
        ("toy/faster_rcnn_R_50_C4", {"bbox/AP", "bbox/AP50", "bbox/AP75"}),
        ("toy/faster_rcnn_R_50_DC5", {"bbox/AP", "bbox/AP50", "bbox/AP75"}),
        ("toy/mask_rcnn_R_18_FPN", {"bbox/AP", "segm/AP", "segm/AP50", "segm/AP75"}),
        ("toy/keypoint_rcnn_R_18_FPN", {"bbox/AP", "keypoints/AP", "keypoints/AP50", "keypoints/AP75"}),
    ],
)
def test_two_iterations_and_an_evaluation(train, recipe, metrics):
    record = read_run_record(train("--init", "random", recipe=recipe))
    assert (record["extra"]["task"], record["extra"]["iterations"]) == (recipe, 2)
    found = {name: value for name, value in record["metrics"].items() if name in metrics}
    assert set(found) == metrics and not any(map(math.isnan, found.values())), record["metrics"]
