"""faster-coco-eval gives pycocotools' numbers, with crowds, objects of all sizes, ties and too many detections."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances
from pycocotools import mask as run_lengths

from moco_det.finetune.coco_evaluator import RESULTS, FasterCocoEvaluator, build_coco_evaluator
from moco_det.model_zoo import get_config

NAME = "noisy_world"
BOTH = ("pycocotools", "faster_coco_eval")


def uncompressed(polygons, size):
    """A crowd's mask as COCO's files hold it: lengths of runs of 0 and 1 in turn, column by column."""
    mask = run_lengths.decode(run_lengths.merge(run_lengths.frPyObjects(polygons, *size)))
    flat = mask.flatten(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {"counts": counts if flat[0] == 0 else [0, *counts], "size": list(size)}


def enlarged(truth, points):
    """The toy world with images of 64, 192 and 320 px, hence objects of all sizes.

    One class has no annotation, and one image none; every fifth annotation is a crowd. Each object has ``points``
    keypoints, those of the toy world over and over.
    """
    truth = copy.deepcopy(truth)
    images = {}
    for index, image in enumerate(truth["images"]):
        factor = (1, 3, 5)[index % 3]
        image["height"], image["width"] = image["height"] * factor, image["width"] * factor
        images[image["id"]] = (image, factor)
    unused, empty = truth["categories"][-1]["id"], truth["images"][0]["id"]
    kept = [a for a in truth["annotations"] if a["category_id"] != unused and a["image_id"] != empty]
    for index, annotation in enumerate(kept):
        image, factor = images[annotation["image_id"]]
        annotation["bbox"] = [factor * x for x in annotation["bbox"]]
        annotation["area"] *= factor**2
        polygons = [[factor * x for x in polygon] for polygon in annotation["segmentation"]]
        annotation["segmentation"] = polygons
        if index % 5 == 4:
            annotation["iscrowd"] = 1
            annotation["segmentation"] = uncompressed(polygons, (image["height"], image["width"]))
        if points:
            own = np.resize(np.array(annotation["keypoints"]).reshape(-1, 3), (points, 3))
            annotation["keypoints"] = (own * [factor, factor, 1]).flatten().tolist()
            annotation["num_keypoints"] = int((own[:, 2] > 0).sum())
    return truth | {"annotations": kept}


@pytest.fixture
def world(toyworld, tmp_path):
    """Registers the enlarged toy world as NAME; returns what its file holds."""

    def make(points=0):
        kind = "person_keypoints" if points else "instances"
        file = toyworld / "toyworld" / "coco" / "annotations" / f"{kind}_val2017.json"
        content = json.loads(file.read_text())
        if points:
            content["categories"].append({"id": 2, "name": "never"})
        truth = enlarged(content, points)
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        register_coco_instances(NAME, {}, str(tmp_path / "truth.json"), str(tmp_path))
        DatasetCatalog.get(NAME)  # the reader notes the classes in the metadata
        return truth

    yield make
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def noisy(truth, image, rng, count):
    """Detections of an image: its labels, moved and partly of another class, some of nothing; scores have ties."""
    classes = {category["id"]: n for n, category in enumerate(truth["categories"])}
    own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
    picked = [own[rng.integers(len(own))] if own and rng.random() < 0.8 else None for _ in range(count)]
    size = np.array([image["width"], image["height"]])
    points = len(truth["annotations"][0].get("keypoints", ())) // 3
    boxes, labels, keypoints = [], [], []
    for label in picked:
        if label is None:
            start, extent = rng.random(2) * size * 0.8, 1 + rng.random(2) * size * 0.5
        else:
            start, extent = np.array(label["bbox"][:2]), np.array(label["bbox"][2:])
        spread = rng.choice([0, 0.02, 0.1, 0.3]) * np.sqrt(extent.prod())
        start, end = start + rng.normal(0, spread, 2), start + extent + rng.normal(0, spread, 2)
        boxes.append([*np.minimum(start, end), *np.maximum(start, end)])
        wrong = label is None or rng.random() < 0.2
        labels.append(rng.integers(len(classes)) if wrong else classes[label["category_id"]])
        if points:
            at = (
                rng.random((points, 2)) * size
                if label is None
                else np.array(label["keypoints"]).reshape(-1, 3)
            )
            keypoints.append(np.c_[at[:, :2] + rng.normal(0, spread, (points, 2)), np.ones(points)])
    found = Instances((image["height"], image["width"]))
    found.pred_boxes = Boxes(torch.tensor(np.array(boxes), dtype=torch.float32))
    found.pred_classes = torch.tensor(np.array(labels))
    found.scores = torch.tensor(rng.integers(1, 20, count) / 20)
    if points:
        found.pred_keypoints = torch.tensor(np.array(keypoints), dtype=torch.float32)
    else:
        rows, columns = np.mgrid[: image["height"], : image["width"]]
        inside = [(columns >= a) & (columns < c) & (rows >= b) & (rows < d) for a, b, c, d in boxes]
        found.pred_masks = torch.from_numpy(np.array(inside))
    return found


def all_noisy(truth, seed):
    rng = np.random.default_rng(seed)
    # In one image more than the 100 that count.
    return [
        (image, noisy(truth, image, rng, 130 if n == 1 else 25)) for n, image in enumerate(truth["images"])
    ]


def config(folder, evaluator, sigmas=()):
    cfg = get_config("toy/mask_rcnn_R_18_FPN")
    cfg.merge_from_list(["TEST.COCO_EVALUATOR", evaluator, "OUTPUT_DIR", str(folder / evaluator)])
    cfg.TEST.KEYPOINT_OKS_SIGMAS = list(sigmas)
    return cfg


def evaluate(cfg, detections, **kwargs):
    evaluator = build_coco_evaluator(cfg, NAME)
    evaluator.reset()
    for image, found in detections:
        evaluator.process([{"image_id": image["id"]}], [{"instances": copy.deepcopy(found)}])
    return evaluator.evaluate(**kwargs)


def assert_same(*results):
    one, other = results
    assert one.keys() == other.keys()
    for task in one:
        assert one[task].keys() == other[task].keys()
        # The two add up in another order: the last bit may differ.
        np.testing.assert_allclose(
            *(list(r[task].values()) for r in results), rtol=1e-14, atol=0, err_msg=task
        )


@pytest.mark.parametrize("seed", range(3))
def test_boxes_and_masks_have_the_same_numbers(world, tmp_path, seed):
    truth = world()
    detections = all_noisy(truth, seed)
    results = [evaluate(config(tmp_path, which), detections) for which in BOTH]
    assert_same(*results)
    for task in ("bbox", "segm"):
        found = results[1][task]
        assert len(found) == 6 + len(truth["categories"]) == 18
        sizes = {ap: found[ap] for ap in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
        assert all(0 <= ap < 99 for ap in sizes.values()) and sizes["AP"] > 0, sizes
        assert np.isnan(found[f"AP-{truth['categories'][-1]['name']}"])  # the class without annotation
    written = [json.loads((tmp_path / which / "inference" / RESULTS).read_text()) for which in BOTH]
    assert written[0] == written[1] and len(written[0]) == 130 + 11 * 25


@pytest.mark.parametrize("points, sigmas", [(5, [0.1] * 5), (5, [0.02, 0.05, 0.1, 0.2, 0.4]), (17, [])])
def test_keypoints_have_the_same_numbers(world, tmp_path, points, sigmas):
    truth = world(points)
    detections = all_noisy(truth, seed=4)
    results = [evaluate(config(tmp_path, which, sigmas), detections) for which in BOTH]
    assert_same(*results)
    found = results[1]["keypoints"]
    assert len(found) == 5 + 2 and np.isnan(found["AP-never"])
    assert all(0 < found[ap] < 99 for ap in ("AP", "AP50", "AP75", "APm", "APl"))


def test_sigmas_change_the_keypoints_numbers(world, tmp_path):
    detections = all_noisy(world(5), seed=4)
    strict, lax = (evaluate(config(tmp_path, BOTH[1], [s] * 5), detections)["keypoints"] for s in (0.02, 0.1))
    assert strict["AP"] < lax["AP"]


@pytest.mark.parametrize("which", BOTH)
def test_the_moved_detections_of_one_image_change_the_numbers(world, tmp_path, which):
    detections = all_noisy(world(), seed=0)
    before = evaluate(config(tmp_path, which), detections)
    found = detections[3][1]
    found.pred_boxes.tensor += 60
    found.pred_masks = found.pred_masks.roll(60, dims=2)
    after = evaluate(config(tmp_path, which), detections)
    assert before["bbox"]["AP"] != after["bbox"]["AP"] and before["segm"]["AP"] != after["segm"]["AP"]


def test_some_images_only_and_twice_the_same(world, tmp_path):
    truth = world()
    detections = all_noisy(truth, seed=1)
    some = [image["id"] for image in truth["images"][2:5]]
    assert_same(*(evaluate(config(tmp_path, which), detections, img_ids=some) for which in BOTH))
    evaluator = FasterCocoEvaluator(NAME, use_fast_impl=False)
    evaluator.reset()
    for image, found in detections:
        evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
    whole = [evaluator.evaluate() for _ in range(2)]
    assert_same(*whole)
    assert evaluator._coco_api.dataset == truth


def test_without_detections_nothing_is_a_number(world, tmp_path):
    truth = world()
    nothing = Instances((64, 64), pred_boxes=Boxes(torch.zeros(0, 4)))
    nothing.scores, nothing.pred_classes = torch.zeros(0), torch.zeros(0)
    results = [evaluate(config(tmp_path, w), [(i, nothing) for i in truth["images"]]) for w in BOTH]
    assert_same(*results)
    assert np.isnan(list(results[1]["bbox"].values())).all()


def test_an_unknown_evaluator_and_a_missing_package_are_refused_before_training(train, monkeypatch):
    with pytest.raises(ValueError, match="COCO_EVALUATOR is 'fast'.*pycocotools, faster_coco_eval"):
        train("TEST.COCO_EVALUATOR", "fast")
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ValueError, match="faster-coco-eval .*pip .*pycocotools"):
        train("TEST.COCO_EVALUATOR", "faster_coco_eval")
