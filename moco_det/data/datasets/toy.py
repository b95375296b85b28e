"""The toy world's data sets, registered in each of its layouts."""

import json
import os

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc

from moco_det.data.datasets import segmentation
from moco_det.data.datasets.lvis import register_lvis
from moco_det.data.datasets.toy_classes import TOY_CLASSES, TOY_KEYPOINT_FLIPS, TOY_KEYPOINTS, lvis_categories
from moco_det.utils.files import datasets_root

TOY_NAMES = (
    "toy_voc_2007_trainval",
    "toy_voc_2007_test",
    "toy_coco_train",
    "toy_coco_val",
    "toy_keypoints_train",
    "toy_keypoints_val",
    "toy_lvis_train",
    "toy_lvis_val",
)


def register_toy_datasets(root: str | None = None) -> None:
    """Register the toy world in each of its layouts; again does no harm.

    Args:
        root: folder of a toy world; default ``toyworld`` in :func:`moco_det.utils.files.datasets_root`. Its
            ``toyworld.json`` names the classes; where there is none (yet), they are the procedural ones.
    """
    root = root or os.path.join(datasets_root(), "toyworld")
    classes = _toy_classes(root)
    for name in TOY_NAMES:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    for split in ("trainval", "test"):
        name = f"toy_voc_2007_{split}"
        register_pascal_voc(name, os.path.join(root, "VOC2007"), split, 2007, classes)
        MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    points = {"keypoint_names": list(TOY_KEYPOINTS), "keypoint_flip_map": list(TOY_KEYPOINT_FLIPS)}
    for kind, file, metadata in (
        ("coco", "instances", {"thing_classes": classes}),
        ("keypoints", "person_keypoints", {"thing_classes": ["object"], **points}),
    ):
        for split in ("train", "val"):
            labels = os.path.join(root, "coco", "annotations", f"{file}_{split}2017.json")
            image_dir = os.path.join(root, "coco", f"{split}2017")
            register_coco_instances(f"toy_{kind}_{split}", metadata, labels, image_dir)
    categories = lvis_categories(classes)
    for split in ("train", "val"):
        register_lvis(
            f"toy_lvis_{split}",
            os.path.join(root, "lvis", f"lvis_v1_{split}.json"),
            os.path.join(root, "coco"),
            ids=[category["id"] for category in categories],
            folders=(f"{split}2017",),
            thing_classes=[category["name"] for category in categories],
        )
    segmentation.register_toy(root, classes)


def _toy_classes(root: str) -> list[str]:
    manifest = os.path.join(root, "toyworld.json")
    if not os.path.isfile(manifest):
        return list(TOY_CLASSES)
    with open(manifest) as file:
        return list(json.load(file)["classes"])


register_toy_datasets()
