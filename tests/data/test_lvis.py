"""The LVIS reader, on small files that hold what the real ones hold."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import get_lvis_instances_meta
from detectron2.data.datasets.lvis_v0_5_categories import LVIS_CATEGORIES as V05
from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES as V1
from detectron2.structures import BoxMode

from moco_det.data.datasets.lvis import register_lvis_datasets
from moco_det.finetune.datasets import check_datasets
from moco_det.model_zoo import get_config

RECIPE = {
    "v0.5": "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
    "v1": "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
}
POLYGON = [10.0, 20.0, 40.5, 20.0, 40.5, 60.0]


def lvis_file(categories, **place):
    """Two images in the format of LVIS; ``place`` says where the first one lies."""
    common = {"height": 480, "width": 640, "license": 4, "date_captured": "2013-11-17 05:57:24"}
    common |= {"flickr_url": "http://farm6.staticflickr.com/x_z.jpg"}
    federated = {"neg_category_ids": [7, 800], "not_exhaustive_category_ids": [3]}
    url = "http://images.cocodataset.org/val2017/000000000009.jpg"
    nothing = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    instance = {"bbox": [10.0, 20.0, 30.5, 40.0], "area": 610.0, "segmentation": [POLYGON]}
    counts = {"image_count": 12, "instance_count": 20}
    return {
        "info": {"description": "LVIS"},
        "licenses": [],
        "categories": [category | counts for category in categories],
        "images": [
            {"id": 155379, **common, **federated, **place},
            {"id": 9, "coco_url": url, **common, **nothing},
        ],
        "annotations": [
            {"id": 1, "image_id": 155379, "category_id": 3, **instance},
            {"id": 2, "image_id": 155379, "category_id": len(categories), **instance},
        ],
    }


@pytest.fixture
def root(tmp_path):
    """Complete official layouts, registered; only the images are missing."""
    for folder in ("lvis", "coco/train2017", "coco/val2017"):
        (tmp_path / folder).mkdir(parents=True)
    url = {"coco_url": "http://images.cocodataset.org/train2017/000000155379.jpg"}
    old = {"file_name": "COCO_val2014_000000155379.jpg"}
    for split in ("train", "val"):
        for version, content in (("v0.5", lvis_file(V05, **old)), ("v1", lvis_file(V1, **url))):
            (tmp_path / "lvis" / f"lvis_{version}_{split}.json").write_text(json.dumps(content))
    register_lvis_datasets(str(tmp_path))
    yield tmp_path
    register_lvis_datasets()


@pytest.mark.parametrize(
    ("version", "folder", "last"), [("v0.5", "val2017", 1229), ("v1", "train2017", 1202)]
)
def test_what_the_file_says_is_read(root, version, folder, last):
    empty, record = DatasetCatalog.get(f"moco_lvis_{version}_val")
    assert record["file_name"] == str(root / "coco" / folder / "000000155379.jpg")
    assert (record["image_id"], record["height"], record["width"]) == (155379, 480, 640)
    assert (record["neg_category_ids"], record["not_exhaustive_category_ids"]) == ([7, 800], [3])
    assert [entry["category_id"] for entry in record["annotations"]] == [2, last]
    assert record["annotations"][0]["bbox"] == [10.0, 20.0, 30.5, 40.0]
    assert record["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS
    assert record["annotations"][0]["segmentation"] == [POLYGON]
    assert empty["file_name"] == str(root / "coco/val2017/000000000009.jpg") and empty["annotations"] == []


def test_images_without_an_address_lie_with_their_split(root):
    _, record = DatasetCatalog.get("moco_lvis_v0.5_train")
    assert record["file_name"] == str(root / "coco/train2017/000000155379.jpg")


@pytest.mark.parametrize(
    ("version", "count", "first"), [("v0.5", 1230, "acorn"), ("v1", 1203, "aerosol_can")]
)
def test_the_classes_are_those_of_the_version(version, count, first):
    metadata = MetadataCatalog.get(f"moco_lvis_{version}_train")
    assert (len(metadata.thing_classes), metadata.thing_classes[0]) == (count, first)
    assert metadata.thing_dataset_id_to_contiguous_id[count] == count - 1
    assert metadata.thing_classes == get_lvis_instances_meta(f"lvis_{version}")["thing_classes"]
    assert metadata.evaluator_type == "lvis"


def test_v1_has_the_image_counts_of_its_classes():
    counts = MetadataCatalog.get("moco_lvis_v1_train").class_image_count
    assert sorted(entry["id"] for entry in counts) == list(range(1, 1204))


def test_a_file_of_another_version_is_refused(root):
    (root / "lvis/lvis_v0.5_val.json").rename(root / "lvis/lvis_v1_val.json")
    with pytest.raises(ValueError, match=r"lvis_v1_val.json has 1230 categories .* expected 1203 .* version"):
        DatasetCatalog.get("moco_lvis_v1_val")


@pytest.mark.parametrize("polygons", [[], [[1.0, 2.0, 3.0, 4.0]], [POLYGON, POLYGON[:5]]])
def test_an_instance_without_outline_is_refused(root, polygons):
    content = lvis_file(V1, coco_url="x/train2017/000000155379.jpg")
    content["annotations"][1]["segmentation"] = polygons
    (root / "lvis/lvis_v1_val.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lvis_v1_val.json: annotation 2 .* 3 points"):
        DatasetCatalog.get("moco_lvis_v1_val")


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("moco_lvis_v1_val", "lvis/lvis_v1_val.json"),
        ("moco_lvis_v1_val", "coco/train2017"),  # most of its images lie there
        ("moco_lvis_v1_val", "coco/val2017"),
        ("moco_lvis_v1_train", "coco/train2017"),
        ("moco_lvis_v0.5_train", "lvis/lvis_v0.5_train.json"),
        ("moco_lvis_v0.5_val", "coco/val2017"),
    ],
)
def test_what_is_missing_is_said_with_its_place(root, monkeypatch, name, missing):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    cfg = get_config(RECIPE[name.split("_")[2]])
    check_datasets(cfg, (name,))
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(
        ValueError, match=f"{name}' is missing: '{root}/{missing}' does not exist. It was looked"
    ):
        check_datasets(cfg, (name,))


def test_folders_that_a_split_does_not_use_may_be_missing(root):
    (root / "coco/val2017").rmdir()
    check_datasets(get_config(RECIPE["v1"]), ("moco_lvis_v1_train",))


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("lvis_v1_train", "take moco_lvis_v1_train"),
        ("lvis_v0.5_val", "take moco_lvis_v0.5_val"),
        ("lvis_v0.5_val_cocofied", "take one of .*moco_lvis_v1_val"),
    ],
)
def test_the_names_that_detectron2_cannot_read_are_refused(name, fix):
    with pytest.raises(ValueError, match=f"{name}' is read by detectron2 with the package lvis.*{fix}"):
        check_datasets(get_config(RECIPE["v1"]), (name,))


def test_the_entries_of_detectron2_are_left_alone():
    reader = DatasetCatalog["lvis_v1_train"]
    assert reader.__module__ == "detectron2.data.datasets.lvis"
