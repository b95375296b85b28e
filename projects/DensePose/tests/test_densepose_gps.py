"""GPS and its AP against loops, and on what is known: perfect is 100, wrong is far less."""

import json

import gps_oracle
import numpy as np
import pytest

from moco_densepose.average_precision import AREAS, THRESHOLDS, ImagePair, average_precisions
from moco_densepose.charts import COARSE_OF_CHART, GROUP_OF_CHART, MIRRORED_CHART
from moco_densepose.evaluator import GpsEvaluator, gps_average_precision
from moco_densepose.gps import Detection, read_person, similarity
from moco_densepose.toy_bodies import annotate
from moco_densepose.toy_figure import Pose, render
from moco_densepose.toy_tables import toy_body

SIZE = 128


def body(pose, image_id=1, number=1):
    """A rendered body: its annotation, and its true I, U, V as a detection."""
    seen = render(pose, SIZE, SIZE)
    visible = seen.part >= 0
    entry = annotate(np.random.default_rng(number), seen, visible) | {"id": number, "image_id": image_id}
    x, y, width, height = entry["bbox"]
    window = np.s_[y : y + height, x : x + width]
    iuv = np.stack([seen.label[window], 255 * seen.u[window], 255 * seen.v[window]]).astype(np.uint8)
    return entry, Detection(image_id, 0.9 - 0.01 * number, (x, y, width, height), iuv)


def truth(*entries):
    images = [{"id": number} for number in sorted({entry["image_id"] for entry in entries})]
    return {"images": images, "annotations": list(entries), "categories": [{"id": 1, "name": "person"}]}


@pytest.fixture(scope="module")
def bodies():
    turned = {"left upper arm": -1.2, "right upper leg": 0.3}
    poses = (Pose((60, 52), 60, back, turned if back else {}) for back in (False, True))
    return [body(pose, image_id=number, number=number) for number, pose in enumerate(poses, start=1)]


def ap(bodies, change=lambda iuv: iuv):
    found = [Detection(d.image_id, d.score, d.box, change(d.iuv.copy())) for _, d in bodies]
    return gps_average_precision(truth(*(entry for entry, _ in bodies)), found, toy_body())


def test_a_perfect_prediction_is_100(bodies):
    metrics = ap(bodies)
    assert {name: metrics[name] for name in ("AP", "AP50", "AP75")} == {"AP": 100, "AP50": 100, "AP75": 100}


def test_wrong_predictions_are_far_less(bodies):
    def permuted(iuv):
        return np.stack([np.where(iuv[0] > 0, iuv[0] % 24 + 1, 0), *iuv[1:]])

    def mirrored(iuv):
        return np.stack([MIRRORED_CHART[iuv[0]], *iuv[1:]]).astype(np.uint8)

    assert ap(bodies, lambda iuv: iuv[[0, 2, 1]])["AP"] < 70
    assert ap(bodies, permuted)["AP"] < 20
    assert ap(bodies, mirrored)["AP"] < 60
    assert ap(bodies, lambda iuv: np.stack([iuv[0], iuv[1] * 0, iuv[2] * 0]))["AP"] < 60
    assert ap(bodies, lambda iuv: iuv * 0)["AP"] == 0
    assert gps_average_precision(truth(bodies[0][0]), [], toy_body())["AP"] == 0


def test_similarity_by_loops(bodies):
    """The similarity is that of loops, for right, shifted, blurred and absent predictions."""
    tables, rng = toy_body(), np.random.default_rng(0)
    means = [0] + [gps_oracle.mean_distance(tables, g, GROUP_OF_CHART, COARSE_OF_CHART) for g in range(1, 9)]
    np.testing.assert_allclose(tables.mean_distances, means, rtol=1e-5)
    entry, detection = bodies[1]
    entry = {
        key: value[:25] if key in ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V") else value
        for key, value in entry.items()
    }
    x, y, width, height = detection.box
    boxes = (
        detection.box,
        (x + 3.6, y - 2.3, width - 5.2, height + 1.5),
        (x + 0.5, y + 40.2, width, 30.9),
        (0, 0, 5, 5),
    )
    for box in boxes:
        noise = rng.integers(0, 60, (2, int(box[3]), int(box[2])))
        cells = [
            np.minimum(np.arange(int(side)), limit - 1)
            for side, limit in zip(box[:1:-1], detection.iuv.shape[1:], strict=True)
        ]
        iuv = detection.iuv[:, cells[0][:, None], cells[1]].astype(int)
        iuv[1:] = np.minimum(iuv[1:] + noise, 255)
        iuv[:, 0, 0] = 1, 90, 90  # which points outside of the box must not meet
        shown = Detection(2, 0.5, box, iuv.astype(np.uint8))
        expected = gps_oracle.gps(entry, shown, tables, means, GROUP_OF_CHART)
        assert similarity(read_person(entry, tables), shown, tables) == pytest.approx(expected, rel=1e-6)


def test_similarity_by_hand():
    """One point, one unit of its mean distance away: exp(-1/2)."""
    tables = type(toy_body())(
        *(np.array(v) for v in ([1, 1, 1], [0.0, 0.5, 1.0], [0.0] * 3, [0, 1, 2])), np.array([1.0, 2.0, 3.0])
    )
    tables.mean_distances = np.array([0, 2.0] + [9.0] * 7)
    person = read_person(
        {"bbox": [0, 0, 2, 2], "dp_x": [64], "dp_y": [64], "dp_I": [1], "dp_U": [0], "dp_V": [0]}, tables
    )
    iuv = np.array([[[1]], [[255]], [[0]]], dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    assert similarity(person, Detection(1, 1, (0, 0, 2, 2), iuv), tables) == pytest.approx(np.exp(-0.5))


def random_image(rng):
    detections, people = int(rng.integers(0, 6)), int(rng.integers(0, 5))
    annotated = rng.random(people) < 0.7
    gps = rng.choice([0, 0.3, 0.52, 0.6, 0.77, 0.96, 0.99], (detections, people)) * annotated
    return ImagePair(
        gps,
        rng.choice([0.1, 0.5, 0.82, 0.9], (detections, people)),
        np.sort(rng.random(detections))[::-1],
        rng.choice([500.0, 2000, 20000], detections),
        rng.choice([500.0, 2000, 20000], people),
        annotated,
        (rng.random(people) < 0.3) & ~annotated,
    )


def test_average_precision_by_loops():
    """Random images with people without annotations, crowds, boxes that cover, and sizes."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        images = [random_image(rng) for _ in range(4)]
        plain = [
            {name: np.asarray(value).tolist() for name, value in vars(image).items()} for image in images
        ]
        found = average_precisions(images)
        for suffix, (low, high) in AREAS.items():
            if not any(gps_oracle.needed(i, g, low, high) for i in plain for g in range(len(i["annotated"]))):
                assert np.isnan(found[f"AP{suffix}"])
                continue
            each = [gps_oracle.average_precision(plain, t, low, high) for t in THRESHOLDS]
            assert found[f"AP{suffix}"] == pytest.approx(np.mean(each))
            if not suffix:
                assert [found["AP50"], found["AP75"]] == pytest.approx([each[0], each[5]])


def test_a_covered_person_without_dense_pose_costs_nothing(bodies):
    """A detection of it is no mistake; elsewhere in the image it is."""
    (entry, detection), _ = bodies
    bare = {"id": 9, "image_id": 1, "bbox": [2, 2, 20, 20], "area": 400, "iscrowd": 0}
    there = Detection(1, 0.99, (2, 2, 20, 20), np.zeros((3, 20, 20), dtype=np.uint8))
    elsewhere = Detection(1, 0.99, (90, 90, 20, 20), np.zeros((3, 20, 20), dtype=np.uint8))
    content = truth(entry, bare)
    assert gps_average_precision(content, [detection, there], toy_body())["AP"] == 100
    assert gps_average_precision(content, [detection, elsewhere], toy_body())["AP"] == pytest.approx(50)


def test_mean_distances_of_the_config_are_as_many_as_groups(toy_root):
    with pytest.raises(ValueError, match="DENSEPOSE_MEAN_DISTANCES has 8 numbers; give 9"):
        GpsEvaluator("moco_densepose_toy_val", (0.1,) * 8)


def test_annotations_have_one_category(bodies):
    content = json.loads(json.dumps(truth(bodies[0][0])))
    content["categories"].append({"id": 2, "name": "dog"})
    with pytest.raises(ValueError, match="2 categories; GPS is measured on one"):
        gps_average_precision(content, [], toy_body())
