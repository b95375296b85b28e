"""Data sets of fine-tuning: the toy world's are registered here, and what is missing is said before training."""

import difflib
import json
import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc

from moco_det.files import datasets_root
from moco_det.finetune import segmentation_datasets as segmentation
from moco_det.toy_classes import TOY_CLASSES

# Of each kind of data set (metadata evaluator_type), the files and folders that its reader opens.
_NEEDED = {
    "pascal_voc": lambda meta: [
        os.path.join(meta.dirname, "ImageSets", "Main", f"{meta.split}.txt"),
        os.path.join(meta.dirname, "Annotations"),
        os.path.join(meta.dirname, "JPEGImages"),
    ],
    "coco": lambda meta: [meta.json_file, meta.image_root],
    **segmentation.NEEDED,
}


def register_toy_datasets(root: str | None = None) -> None:
    """Register the toy world in each of its layouts; again does no harm.

    Args:
        root: folder of a toy world; default ``toyworld`` in :func:`moco_det.files.datasets_root`. Its
            ``toyworld.json`` names the classes; where there is none (yet), they are the procedural ones.
    """
    root = root or os.path.join(datasets_root(), "toyworld")
    classes = _toy_classes(root)
    names = ("toy_voc_2007_trainval", "toy_voc_2007_test", "toy_coco_train", "toy_coco_val")
    for name in names:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    for name, split in zip(names[:2], ("trainval", "test"), strict=True):
        register_pascal_voc(name, os.path.join(root, "VOC2007"), split, 2007, classes)
        MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    for name, split in zip(names[2:], ("train", "val"), strict=True):
        labels = os.path.join(root, "coco", "annotations", f"instances_{split}2017.json")
        images = os.path.join(root, "coco", f"{split}2017")
        register_coco_instances(name, {"thing_classes": classes}, labels, images)
    segmentation.register_toy(root, classes)


def _toy_classes(root: str) -> list[str]:
    manifest = os.path.join(root, "toyworld.json")
    if not os.path.isfile(manifest):
        return list(TOY_CLASSES)
    with open(manifest) as file:
        return list(json.load(file)["classes"])


def check_datasets(cfg: CfgNode, names: tuple[str, ...]) -> None:
    """Refuse data sets that are unknown, not where they are looked for, or of another number of classes.

    Raises:
        ValueError: names the data set, what is missing and where it was looked for, and the mend.
    """
    if not names:
        raise ValueError(
            "DATASETS.TRAIN and DATASETS.TEST are empty; give e.g. DATASETS.TEST \"('toy_coco_val',)\""
        )
    for name in names:
        if name not in DatasetCatalog:
            near = difflib.get_close_matches(name, DatasetCatalog.list(), n=1, cutoff=0)
            raise ValueError(
                f"data set {name!r} is not registered; the nearest registered one is {near[0]!r}"
            )
        segmentation.check_packages(name)
        _check_files(name)
        _check_classes(cfg, name)


def _check_files(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    needed = _NEEDED.get(metadata.get("evaluator_type"), lambda _: [])
    for path in needed(metadata):
        if not os.path.exists(path):
            mend = "make it with tools/make_toyworld.py" if name.startswith("toy_") else "put it there"
            if path.endswith(segmentation.TRAIN_IDS):
                mend = segmentation.MAKE_TRAIN_IDS
            raise ValueError(
                f"data set {name!r} is missing: {path!r} does not exist. It was looked for in "
                f"{os.path.abspath(datasets_root())!r} "
                f"(DETECTRON2_DATASETS={os.getenv('DETECTRON2_DATASETS')!r}); "
                f"{mend}, or set DETECTRON2_DATASETS to the folder that holds it"
            )


# Of each architecture, the key that counts the classes and the metadata that list them.
_CLASSES = {
    "GeneralizedRCNN": ("ROI_HEADS", "thing_classes"),
    "SemanticSegmentor": ("SEM_SEG_HEAD", "stuff_classes"),
}


def _check_classes(cfg: CfgNode, name: str) -> None:
    if cfg.MODEL.META_ARCHITECTURE not in _CLASSES:
        return
    head, listed = _CLASSES[cfg.MODEL.META_ARCHITECTURE]
    classes, found = MetadataCatalog.get(name).get(listed), cfg.MODEL[head].NUM_CLASSES
    if classes is not None and len(classes) != found:
        raise ValueError(
            f"MODEL.{head}.NUM_CLASSES is {found}, but data set {name!r} has {len(classes)} classes "
            f"({', '.join(classes[:3])}, …); give MODEL.{head}.NUM_CLASSES {len(classes)}"
        )


register_toy_datasets()
