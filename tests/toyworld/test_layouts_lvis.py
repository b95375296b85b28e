"""The toy world as LVIS: what its files say of an image is true, and they say it as LVIS does."""

import json

import pytest
from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES

from moco_det.data.datasets.toy_classes import TOY_CLASSES, lvis_categories
from moco_det.toyworld.layouts.lvis import SHARE

SPLITS = {"train": "train2017", "val": "val2017"}


@pytest.fixture(params=SPLITS)
def files(request, world):
    """A split as LVIS and as COCO, categories of COCO by the LVIS ids, and the split's folder."""
    folder = SPLITS[request.param]
    lvis = json.loads((world / "lvis" / f"lvis_v1_{request.param}.json").read_text())
    coco = json.loads((world / "coco/annotations" / f"instances_{folder}.json").read_text())
    ids = [entry["id"] for entry in lvis["categories"]]
    renamed = {entry["id"]: ids[n] for n, entry in enumerate(coco["categories"])}
    for entry in coco["annotations"]:
        entry["category_id"] = renamed[entry["category_id"]]
    return lvis, coco, folder


def by_category(content, image, category):
    return [
        {key: entry[key] for key in ("bbox", "area", "segmentation")}
        for entry in content["annotations"]
        if (entry["image_id"], entry["category_id"]) == (image["id"], category)
    ]


def test_categories_are_those_of_lvis(files):
    official = {entry["id"]: entry for entry in LVIS_CATEGORIES}
    for entry in files[0]["categories"]:
        assert {key: entry[key] for key in official[entry["id"]]} == official[entry["id"]]
    assert {entry["frequency"] for entry in files[0]["categories"]} == {"r", "c", "f"}
    assert len(files[0]["categories"]) == len(TOY_CLASSES)


def test_images_are_those_of_coco(files, world):
    lvis, coco, folder = files
    for image, same in zip(lvis["images"], coco["images"], strict=True):
        assert image["coco_url"].split("/")[-2:] == [folder, same["file_name"]]
        assert (world / "coco" / folder / same["file_name"]).is_file()
        assert "file_name" not in image and (image["id"], image["height"]) == (same["id"], same["height"])


def test_labels_are_true_and_what_is_left_out_is_declared(files):
    lvis, coco, _ = files
    left_out = unknown = 0
    for image in lvis["images"]:
        for category in (entry["id"] for entry in lvis["categories"]):
            labeled, there = (by_category(content, image, category) for content in (lvis, coco))
            if category in image["neg_category_ids"]:
                assert there == []
            elif category in image["not_exhaustive_category_ids"]:
                assert labeled and labeled == there[: len(labeled)] and len(labeled) < len(there)
                left_out += 1
            elif labeled:
                assert labeled == there
            else:
                unknown += bool(there)
    assert left_out > 0 and unknown > 0


def test_every_category_has_instances_and_rare_ones_are_looked_for_less(files):
    lvis, _, _ = files
    looked_for = {}
    for entry in lvis["categories"]:
        labeled = {a["image_id"] for a in lvis["annotations"] if a["category_id"] == entry["id"]}
        assert labeled
        denied = {image["id"] for image in lvis["images"] if entry["id"] in image["neg_category_ids"]}
        looked_for.setdefault(entry["frequency"], []).append(len(labeled | denied) / len(lvis["images"]))
    for frequency, shares in looked_for.items():
        assert min(shares) >= SHARE[frequency] - 0.2 and max(shares) <= SHARE[frequency] + 0.2
    assert max(looked_for["r"]) < max(looked_for["c"]) < min(looked_for["f"]) == 1


def test_counts_are_of_the_training_set(files, world):
    lvis = json.loads((world / "lvis/lvis_v1_train.json").read_text())
    for entry in files[0]["categories"]:
        own = [a["image_id"] for a in lvis["annotations"] if a["category_id"] == entry["id"]]
        assert (entry["instance_count"], entry["image_count"]) == (len(own), len(set(own)))


def test_classes_of_cutouts_are_found_by_name():
    found = lvis_categories(("apple", "spray_can", "unicorn", "aerosol_can"))
    assert [entry["id"] for entry in found] == [12, 1, 1206, 1207]  # spray_can is a synonym of aerosol_can
    assert [entry["frequency"] for entry in found[2:]] == ["c", "c"]
    assert len({entry["id"] for entry in lvis_categories(TOY_CLASSES)}) == len(TOY_CLASSES)
