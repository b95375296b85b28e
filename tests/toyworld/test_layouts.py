"""The layouts as detectron2 reads them."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode, polygons_to_bitmask
from PIL import Image

from moco_det.data.datasets.toy_classes import TOY_CLASSES

SPLITS = [("trainval", "train2017", 14), ("test", "val2017", 12)]


def read_coco(world, split):
    name = f"test_toyworld_coco_{split}"
    MetadataCatalog.pop(name, None)
    annotations = world / "coco" / "annotations" / f"instances_{split}.json"
    return load_coco_json(str(annotations), str(world / "coco" / split), name), MetadataCatalog.get(name)


@pytest.mark.parametrize("voc_split, coco_split, count", SPLITS)
def test_both_layouts_tell_detectron2_the_same(world, voc_split, coco_split, count):
    voc = load_voc_instances(str(world / "VOC2007"), voc_split, TOY_CLASSES)
    coco, metadata = read_coco(world, coco_split)
    assert len(voc) == len(coco) == count
    assert metadata.thing_classes == list(TOY_CLASSES)
    for one, other in zip(voc, coco, strict=True):
        picture, copy = (np.asarray(Image.open(record["file_name"])) for record in (one, other))
        assert picture.shape == (one["height"], one["width"], 3) == (48, 48, 3)
        assert np.array_equal(picture, copy)
        boxes = [
            (entry["category_id"], BoxMode.convert(entry["bbox"], entry["bbox_mode"], BoxMode.XYXY_ABS))
            for entry in one["annotations"] + other["annotations"]
        ]
        half = len(boxes) // 2
        assert half >= 1 and boxes[:half] == boxes[half:]


def test_voc_names_of_the_splits_differ(world):
    lists = [
        (world / "VOC2007/ImageSets/Main" / f"{split}.txt").read_text().split() for split, _, _ in SPLITS
    ]
    assert not set(lists[0]) & set(lists[1])
    assert {path.stem for path in (world / "VOC2007/JPEGImages").iterdir()} == set(lists[0]) | set(lists[1])


def test_every_class_counts_in_the_voc_test_split(world):
    """An object that is difficult is not scored, so it does not count here."""
    found = set()
    for name in (world / "VOC2007/ImageSets/Main/test.txt").read_text().split():
        for entry in ET.parse(world / "VOC2007/Annotations" / f"{name}.xml").findall("object"):
            assert entry.findtext("pose") and entry.findtext("truncated") in "01"
            if entry.findtext("difficult") == "0":
                found.add(entry.findtext("name"))
    assert found == set(TOY_CLASSES)


def test_voc_boxes_count_from_one_and_include_the_last_pixel(world):
    corners = []
    for path in (world / "VOC2007/Annotations").iterdir():
        for box in ET.parse(path).iter("bndbox"):
            corners.append([int(box.findtext(tag)) for tag in ("xmin", "ymin", "xmax", "ymax")])
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    assert low[:2].tolist() == [1, 1] and high[2:].tolist() == [48, 48]  # some objects touch each border


def test_coco_ids_are_not_contiguous(instances):
    ids = [category["id"] for category in instances["train2017"]["categories"]]
    assert ids == [1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17]
    assert instances["train2017"]["categories"] == instances["val2017"]["categories"]
    assert {entry["category_id"] for entry in instances["val2017"]["annotations"]} == set(ids)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_area_box_and_polygons_agree(instances, split):
    for entry in instances[split]["annotations"]:
        mask = polygons_to_bitmask([np.array(polygon) for polygon in entry["segmentation"]], 48, 48)
        assert entry["area"] == pytest.approx(mask.sum(), rel=0.12, abs=6)  # a few pixels of a tiny object
        rows, columns = np.nonzero(mask)
        x, y, width, height = entry["bbox"]
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(found - [x, y, x + width, y + height]).max() <= 1
        assert entry["iscrowd"] == 0


def test_folders_hold_the_images_they_should(world):
    assert len(list((world / "unlabeled").glob("*.jpg"))) == 4
    for split, count in (("train", 2), ("test", 1)):
        folders = sorted(entry.name for entry in (world / "classes" / split).iterdir())
        assert folders == sorted(TOY_CLASSES)
        assert {len(list((world / "classes" / split / name).glob("*.jpg"))) for name in folders} == {count}
