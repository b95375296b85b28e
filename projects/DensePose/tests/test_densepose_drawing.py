"""Points and people are drawn where they are, in colors that tell charts and coordinates apart."""

import numpy as np
import pytest
from PIL import Image

from moco_densepose import draw
from moco_densepose.charts import NUM_CHARTS
from moco_densepose.drawing import chart_colors, draw_detections, draw_points
from moco_densepose.gps import Detection

IMAGE = np.full((20, 30, 3), 100, dtype=np.uint8)


def test_points_are_squares_of_their_color():
    person = {
        "bbox": [10, 5, 8, 10],
        "dp_x": [255 / 2],
        "dp_y": [0],
        "dp_I": [7],
        "dp_U": [1.0],
        "dp_V": [0.0],
    }
    panels = draw_points(IMAGE, [person, {"bbox": [0, 0, 5, 5]}], radius=1)
    assert panels.shape == (20, 90, 3)
    charts, u, v = np.split(panels, 3, axis=1)
    changed = np.zeros((20, 30), dtype=bool)
    changed[4:7, 13:16] = True
    for panel in (charts, u, v):
        assert ((panel != 80).any(axis=-1) == changed).all()
    assert charts[5, 14].tolist() == chart_colors()[7].round().tolist()
    assert u[5, 14, 0] > 200 > 100 > v[5, 14, 0]  # yellow, and dark blue


def test_people_are_cut_at_the_border_and_the_best_is_in_front():
    whole = np.stack([np.full((6, 6), chart) for chart in (5, 0, 255)]).astype(np.uint8)
    other = whole.copy()
    other[0], other[0, 0, 0] = 9, 0
    people = [Detection(0, 0.9, (26.7, -2.0, 6, 6), whole), Detection(0, 0.3, (24, 2, 6, 6), other)]
    panels = draw_detections(IMAGE, people)
    charts = panels[:, :30]
    expected = (25 + 0.75 * chart_colors()[[5, 9]]).round()
    assert charts[2, 27].tolist() == expected[0].tolist() and charts[5, 25].tolist() == expected[1].tolist()
    assert (charts[2, 24] == 80).all() and (charts[10, 10] == 80).all()


def test_colors_of_charts_differ():
    colors = chart_colors()
    apart = np.linalg.norm(colors[:, None] - colors, axis=-1) + 1e9 * np.eye(NUM_CHARTS + 1)
    assert apart.min() > 20


def test_the_tool_draws_annotations(toy_root, tmp_path):
    draw.main(["--dataset", "moco_densepose_toy_val", "--output", str(tmp_path / "x.png")])
    assert Image.open(tmp_path / "x.png").size == (64 * 3 * draw.SCALE, 64 * draw.SCALE)
    with pytest.raises(SystemExit):
        draw.main(["--dataset", "a", "--config-file", "b", "--image", "c", "--output", "d"])
