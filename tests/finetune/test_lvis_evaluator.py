"""LVIS's metric against a loop oracle, rule by rule, and on the toy world."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances, polygons_to_bitmask
from lvis_oracle import lvis_ap
from pycocotools import mask as run_lengths

from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.engine.record import read_run_record
from moco_det.finetune import lvis_evaluator
from moco_det.finetune.evaluators import build_evaluator, check_evaluator
from moco_det.finetune.lvis_evaluator import METRICS, LvisEvaluator, evaluate_lvis
from moco_det.finetune.sampler import repeat_factors
from moco_det.finetune.trainer import Trainer
from moco_det.model_zoo import get_config
from moco_det.testing.core import run_processes

TOY = "toy_lvis_val"
SIDE = 300


# ---- against the oracle -------------------------------------------------------------------------------------


def random_boxes(rng, sides):
    return [[*map(int, rng.integers(0, SIDE - 150, 2)), *map(int, rng.integers(s, s + 20, 2))] for s in sides]


def random_case(seed, images=6, categories=6):
    """Truth and detections of rectangles at whole pixels, whose masks therefore overlap as their boxes do."""
    rng = np.random.default_rng(seed)
    truth = {"images": [], "annotations": [], "categories": []}
    truth["categories"] = [
        {"id": 3 * n + 2, "name": str(n), "frequency": "rcf"[n % 3]} for n in range(categories)
    ]
    detections = []
    for image in range(1, images + 1):
        ids = rng.permutation([entry["id"] for entry in truth["categories"]]).tolist()
        partly = [category for category in ids[:2] if rng.random() < 0.5]
        rules = {"neg_category_ids": ids[2:4], "not_exhaustive_category_ids": partly}
        truth["images"].append({"id": image, "height": SIDE, "width": SIDE, **rules})
        for category in ids[:2]:
            for box in random_boxes(rng, rng.choice([12, 50, 120], rng.integers(1, 4))):
                x, y, w, h = box
                truth["annotations"].append(
                    {
                        "id": len(truth["annotations"]) + 1,
                        "image_id": image,
                        "category_id": category,
                        "bbox": box,
                        "area": w * h,
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )
                for _ in range(rng.integers(0, 3)):  # copies that are off by a few pixels
                    near = (np.array(box) + rng.normal(0, 0.06 * w, 4)).astype(int).clip(1).tolist()
                    detections.append({"image_id": image, "category_id": category, "bbox": near})
        for box in random_boxes(rng, [12, 50, 120] * 3):
            detections.append({"image_id": image, "category_id": int(rng.choice(ids)), "bbox": box})
    for detection in detections:
        x, y, w, h = detection["bbox"]
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
        mask[y : y + h, x : x + w] = 1
        detection |= {"score": float(rng.random()), "segmentation": run_lengths.encode(mask)}
    return truth, detections


@pytest.mark.parametrize("at_once", [100, 2])
@pytest.mark.parametrize("seed", range(5))
def test_box_and_mask_ap_equal_a_loop_over_everything(monkeypatch, seed, at_once):
    monkeypatch.setattr(lvis_evaluator, "CATEGORIES_AT_ONCE", at_once)
    truth, detections = random_case(seed)
    expected = lvis_ap(truth, detections)
    assert list(expected) == list(METRICS) and 5 < expected["AP"] < 95
    for task in ("bbox", "segm"):
        found = evaluate_lvis(copy.deepcopy(truth), detections, task)
        assert found == pytest.approx(expected, abs=1e-6, nan_ok=True), task


def test_the_random_cases_exercise_each_rule():
    """The numbers are others without one of the rules: the comparison above would see its loss."""
    truth, detections = random_case(0)
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        without = copy.deepcopy(truth)
        for image in without["images"]:
            image[key] = []
        assert lvis_ap(without, detections)["AP"] != pytest.approx(lvis_ap(truth, detections)["AP"])


# ---- each rule alone ----------------------------------------------------------------------------------------

PLACE, ELSEWHERE = [10, 10, 50, 50], [120, 120, 50, 50]


def small_case(negative=(), not_exhaustive=(), in_first=False):
    """Category 5 has an instance in image 2, and one in image 1 if ``in_first``; image 1 has these rules."""
    images = [
        {"id": 1, "neg_category_ids": list(negative), "not_exhaustive_category_ids": list(not_exhaustive)},
        {"id": 2, "neg_category_ids": [], "not_exhaustive_category_ids": []},
    ]
    instance = {
        "category_id": 5,
        "bbox": PLACE,
        "area": 2500,
        "segmentation": [[10, 10, 60, 10, 60, 60, 10, 60]],
    }
    return {
        "images": [image | {"height": SIDE, "width": SIDE} for image in images],
        "annotations": [{"id": i, "image_id": i, **instance} for i in ((1, 2) if in_first else (2,))],
        "categories": [{"id": n, "name": str(n), "frequency": "c"} for n in (5, 6)],
    }


def detection(image, box, score, category=5):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


RIGHT, STRAY = detection(2, PLACE, 0.5), detection(1, ELSEWHERE, 0.9)
RULES = {
    "nothing is known of the category in that image: dropped": (small_case(), [RIGHT, STRAY], 100),
    "it is not in that image: a mistake": (small_case(negative=[5]), [RIGHT, STRAY], 50),
    "it is in that image: a mistake": (
        small_case(in_first=True),
        [RIGHT, STRAY, detection(1, PLACE, 0.8)],
        100 * 2 / 3,
    ),
    "instances were left out there: ignored": (
        small_case(not_exhaustive=[5], in_first=True),
        [RIGHT, STRAY, detection(1, PLACE, 0.8)],
        100,
    ),
    "instances were left out, the labeled one still counts": (
        small_case(not_exhaustive=[5], in_first=True),
        [RIGHT, STRAY],
        100 * 51 / 101,
    ),
    "another category's rule is not this one's": (small_case(negative=[6]), [RIGHT, STRAY], 100),
    "nothing was found": (small_case(), [], 0),
}


@pytest.mark.parametrize("case", RULES)
def test_each_rule_changes_the_number_as_it_should(case):
    truth, detections, expected = RULES[case]
    assert lvis_ap(truth, detections)["AP"] == pytest.approx(expected)
    found = evaluate_lvis(copy.deepcopy(truth), detections, "bbox")
    assert found["AP"] == found["APc"] == found["APm"] == pytest.approx(expected)
    assert np.isnan([found["APr"], found["APf"], found["APs"], found["APl"]]).all()


def test_a_mask_is_as_large_as_its_pixels_and_not_as_its_box():
    """A mistake of medium size in a large box is one among the medium."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    mask[100:150, 100:150] = 1
    stray = detection(1, [100, 100, 150, 150], 0.9) | {"segmentation": run_lengths.encode(mask)}
    mask = np.zeros_like(mask)
    mask[10:60, 10:60] = 1
    right = RIGHT | {"segmentation": run_lengths.encode(mask)}
    results = [
        evaluate_lvis(small_case(negative=[5]), [right, stray], task)["APm"] for task in ("segm", "bbox")
    ]
    assert results == pytest.approx([50, 100])


def test_an_image_of_which_nothing_counts(tmp_path):
    """faster-coco-eval 1.8.0 with masks fails on it when left alone."""
    truth = small_case()
    mask = run_lengths.encode(np.ones((SIDE, SIDE), dtype=np.uint8, order="F"))
    found = evaluate_lvis(truth, [STRAY | {"segmentation": mask}], "segm")
    assert found["AP"] == 0


@pytest.mark.parametrize(("others", "expected"), [(299, 100), (300, 0)])
def test_an_image_has_300_detections_whatever_their_category(tmp_path, others, expected):
    """The package alone would allow 300 of each category."""
    (tmp_path / "lvis.json").write_text(json.dumps(small_case()))
    MetadataCatalog.get("three_hundred").set(
        json_file=str(tmp_path / "lvis.json"), thing_dataset_id_to_contiguous_id={5: 0, 6: 1}
    )
    evaluator = LvisEvaluator("three_hundred", str(tmp_path))
    instances = Instances((SIDE, SIDE))
    instances.pred_boxes = Boxes([[10, 10, 60, 60]] + [[0, 0, 9, 9]] * others)
    instances.scores = torch.tensor([0.1] + [0.9] * others)
    instances.pred_classes = torch.tensor([0] + [1] * others)
    evaluator.process([{"image_id": 2}], [{"instances": instances}])
    assert evaluator.evaluate()["bbox"]["AP"] == expected
    MetadataCatalog.remove("three_hundred")


# ---- the toy world ------------------------------------------------------------------------------------------


def predicted(record, annotations, shift=0):
    """The annotations of an image as detections, moved by ``shift`` pixels."""
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    size = record["height"], record["width"]
    masks = [polygons_to_bitmask([np.array(p) for p in a["segmentation"]], *size) for a in annotations]
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32) + shift)
    instances.pred_masks = torch.tensor(np.array(masks)).roll((shift, shift), dims=(1, 2))
    instances.pred_classes = torch.tensor([a["category_id"] for a in annotations])
    instances.scores = torch.ones(len(annotations))
    return instances


def measure(tmp_path, records, shift=0, labels=TOY):
    evaluator = LvisEvaluator(TOY, str(tmp_path))
    evaluator.reset()
    for record, labeled in zip(records, DatasetCatalog.get(labels), strict=True):
        evaluator.process([record], [{"instances": predicted(record, labeled["annotations"], shift)}])
    return evaluator.evaluate()


@pytest.mark.parametrize("labels", [TOY, "toy_coco_val"])
def test_the_truth_scores_100(tmp_path, labels):
    """COCO's too, which holds what LVIS left out or did not look for: that costs nothing."""
    results = measure(tmp_path, DatasetCatalog.get(TOY), labels=labels)
    for task in ("bbox", "segm"):
        values = np.array([results[task][metric] for metric in METRICS])
        assert list(results[task]) == list(METRICS)
        assert np.allclose(values[~np.isnan(values)], 100)
        assert not np.isnan([results[task][m] for m in ("AP", "AP50", "AP75", "APr", "APc", "APf")]).any()


def test_a_shifted_truth_scores_less(tmp_path):
    results = measure(tmp_path, DatasetCatalog.get(TOY), shift=3)
    for task in ("bbox", "segm"):
        assert 5 < results[task]["AP"] < 80
        assert results[task]["AP75"] < results[task]["AP50"]


def test_the_result_file_has_the_ids_of_lvis(tmp_path):
    measure(tmp_path, DatasetCatalog.get(TOY))
    results = json.loads((tmp_path / "lvis_instances_results.json").read_text())
    assert {d["category_id"] for d in results} == set(
        MetadataCatalog.get(TOY).thing_dataset_id_to_contiguous_id
    )
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert max(d["category_id"] for d in results) == 709  # a mushroom


def measure_own_half(root, output):
    """Measure the half of one of two processes."""
    register_toy_datasets(root)
    rank = torch.distributed.get_rank()
    evaluator = LvisEvaluator(TOY, output)
    for record in DatasetCatalog.get(TOY)[rank::2]:
        evaluator.process([record], [{"instances": predicted(record, record["annotations"], 2)}])
    return evaluator.evaluate()


def test_two_processes_measure_as_one(tmp_path, toyworld):
    main, other = run_processes(measure_own_half, 2, str(toyworld / "toyworld"), str(tmp_path))
    assert other is None
    alone = measure(tmp_path / "alone", DatasetCatalog.get(TOY), shift=2)
    for task in ("bbox", "segm"):
        assert main[task] == pytest.approx(alone[task], nan_ok=True)


# ---- training -----------------------------------------------------------------------------------------------


def test_training_and_evaluation_on_the_toy_world(train):
    folder = train("--init", "random", recipe="toy/lvis_mask_rcnn_R_18_FPN")
    metrics = read_run_record(folder)["metrics"]
    assert {f"{task}/{metric}" for task in ("bbox", "segm") for metric in METRICS} <= set(metrics)
    assert 0 <= metrics["segm/AP"] <= 100 and (folder / "inference/lvis_instances_results.json").is_file()
    samples = json.loads((folder / "sample_detections.json").read_text())
    assert samples[0]["ground_truth"][0]["class"] == "bird"


def test_images_are_repeated_by_detectron2s_factors_and_resumed_where_they_were(tiny_cfg):
    cfg = tiny_cfg(recipe="toy/lvis_mask_rcnn_R_18_FPN")
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.9
    dataset = DatasetCatalog.get("toy_lvis_train")
    # By hand: an image is as frequent as its rarest class; f of the images make it come sqrt(0.9 / f) times.
    classes = [{a["category_id"] for a in record["annotations"]} for record in dataset]
    share = {c: sum(c in there for there in classes) / len(dataset) for c in set().union(*classes)}
    expected = [max(1.0, *((0.9 / share[c]) ** 0.5 for c in there)) for there in classes]
    assert repeat_factors(cfg, dataset).tolist() == pytest.approx(expected)
    assert max(expected) > 1.5

    def images(start, count):
        loader = iter(Trainer.build_train_loader(cfg, start))
        return [record["image_id"] for _ in range(count) for record in next(loader)]

    whole = images(0, 20)
    assert images(6, 4) == whole[12:20]
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    assert repeat_factors(cfg, dataset) is None and images(0, 20) != whole


def test_the_metadata_choose_the_evaluator_and_a_missing_package_is_said_before(tmp_path, monkeypatch):
    cfg = get_config("toy/lvis_mask_rcnn_R_18_FPN")
    cfg.OUTPUT_DIR = str(tmp_path)
    assert isinstance(build_evaluator(cfg, TOY), LvisEvaluator)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ValueError, match="faster-coco-eval.*pip install"):
        check_evaluator(TOY)
