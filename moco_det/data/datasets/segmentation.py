"""VOC semantic segmentation and Cityscapes: registration, and what must be there before training starts."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_instances, load_cityscapes_semantic
from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from moco_det.utils.files import datasets_root

IGNORE_LABEL = 255
BACKGROUND = "background"
TRAIN_IDS = "labelTrainIds.png"
# For messages about a Cityscapes label image that the downloaded archives do not hold.
MAKE_TRAIN_IDS = (
    "make it with python -m cityscapesscripts.preparation.createTrainIdLabelImgs under "
    "CITYSCAPES_DATASET=/path/to/cityscapes"
)
# Of each kind of Cityscapes data set, the labels of an image that its reader and its metric open.
CITYSCAPES_LABELS = {
    "cityscapes_sem_seg": ("polygons.json", "labelIds.png", "instanceIds.png", TRAIN_IDS),
    "cityscapes_instance": ("polygons.json", "labelIds.png", "instanceIds.png"),
}
# The packages that reading or measuring a kind of data set imports, and how to get each.
_PACKAGES = {
    "cityscapes_sem_seg": ("cityscapesscripts", "pyquaternion"),
    "cityscapes_instance": ("cityscapesscripts", "pyquaternion", "shapely"),
}
# cityscapesscripts asks for a "typing" from before Python had one, and for its viewer's packages.
_INSTALL = {
    "cityscapesscripts": "pip install --no-deps cityscapesscripts",
    "pyquaternion": "pip install pyquaternion",
    "shapely": "pip install shapely",
}


def load_voc_sem_seg(dirname: str, split: str) -> list[dict]:
    """Read a split of PASCAL VOC for semantic segmentation.

    Args:
        dirname: the folder with ImageSets/Segmentation, JPEGImages and the labels.
        split: ``"val"``, …, labeled in SegmentationClass; or ``"train_aug"``, with SBD's annotations (Hariharan
            et al. 2011), labeled in SegmentationClassAug.
    """
    with open(_voc_list(dirname, split)) as file:
        # Some lists in circulation hold "/JPEGImages/<name>.jpg /SegmentationClassAug/<name>.png".
        names = [Path(line.split()[0]).stem for line in file if line.strip()]
    return [
        {
            "file_name": os.path.join(dirname, "JPEGImages", f"{name}.jpg"),
            "sem_seg_file_name": os.path.join(_voc_labels(dirname, split), f"{name}.png"),
            "image_id": name,
        }
        for name in names
    ]


def _voc_list(dirname: str, split: str) -> str:
    return os.path.join(dirname, "ImageSets", "Segmentation", f"{split}.txt")


def _voc_labels(dirname: str, split: str) -> str:
    return os.path.join(dirname, "SegmentationClassAug" if split == "train_aug" else "SegmentationClass")


def _voc_needs(metadata: Metadata) -> list[str]:
    if metadata.get("dirname") is None:  # as detectron2's builtin sets but VOC's
        return [metadata.get(part) for part in ("image_root", "sem_seg_root") if metadata.get(part)]
    dirname, split = metadata.dirname, metadata.split
    return [
        _voc_list(dirname, split),
        os.path.join(dirname, "JPEGImages"),
        _voc_labels(dirname, split),
    ]


def _cityscapes_needs(metadata: Metadata, *labels: str) -> list[str]:
    needs = [metadata.image_dir, metadata.gt_dir]
    paths = sorted(Path(metadata.image_dir).glob("*/*_leftImg8bit.png"))
    if not paths:
        return [*needs, os.path.join(metadata.image_dir, "<city>", "*_leftImg8bit.png")]
    stem = paths[0].name.removesuffix("leftImg8bit.png")
    folder = os.path.join(metadata.gt_dir, paths[0].parent.name)
    return needs + [os.path.join(folder, f"{stem}gtFine_{label}") for label in labels]


# Of each kind of data set (metadata evaluator_type), the files and folders that its reader and metric open.
NEEDED: dict[str, Callable[[Metadata], list[str]]] = {
    "sem_seg": _voc_needs,
    **{
        kind: lambda metadata, labels=labels: _cityscapes_needs(metadata, *labels)
        for kind, labels in CITYSCAPES_LABELS.items()
    },
}


def check_packages(name: str) -> None:
    """Say which package a data set needs and this environment lacks.

    Raises:
        ValueError: names the package and how to install it.
    """
    for package in _PACKAGES.get(MetadataCatalog.get(name).get("evaluator_type"), ()):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"data set {name!r} needs the package {package}, which is not installed: {_INSTALL[package]}"
            )


def register_voc_sem_seg(name: str, dirname: str, split: str, classes: Sequence[str]) -> None:
    """Register a split of VOC for semantic segmentation; ``classes`` without the background, which is label 0."""
    _register(
        name,
        lambda: load_voc_sem_seg(dirname, split),
        evaluator_type="sem_seg",
        dirname=dirname,
        split=split,
        stuff_classes=[BACKGROUND, *classes],
        ignore_label=IGNORE_LABEL,
    )


def register_toy(root: str, classes: Sequence[str]) -> None:
    """Register ``toy_{voc_sem_seg,cityscapes_sem_seg,cityscapes_instance}_{train,val}``, below ``root``."""
    for split, voc_split in (("train", "train_aug"), ("val", "val")):
        register_voc_sem_seg(f"toy_voc_sem_seg_{split}", os.path.join(root, "VOC2012"), voc_split, classes)
        folders = {
            "image_dir": os.path.join(root, "cityscapes", "leftImg8bit", split),
            "gt_dir": os.path.join(root, "cityscapes", "gtFine", split),
        }
        # Toy classes stand under Cityscapes' names: its reader and its script know no others.
        real = MetadataCatalog.get("cityscapes_fine_sem_seg_val")
        folders |= {"thing_classes": real.thing_classes, "stuff_classes": real.stuff_classes}
        _register(
            f"toy_cityscapes_sem_seg_{split}",
            lambda f=folders: load_cityscapes_semantic(f["image_dir"], f["gt_dir"]),
            evaluator_type="cityscapes_sem_seg",
            ignore_label=IGNORE_LABEL,
            **folders,
        )
        _register(
            f"toy_cityscapes_instance_{split}",
            lambda f=folders: load_cityscapes_instances(f["image_dir"], f["gt_dir"]),
            evaluator_type="cityscapes_instance",
            **folders,
        )


def _register(name: str, read: Callable[[], list[dict]], **metadata) -> None:
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, read)
    MetadataCatalog.get(name).set(**metadata)


for _split in ("train_aug", "val"):
    register_voc_sem_seg(
        f"voc_2012_sem_seg_{_split}", os.path.join(datasets_root(), "VOC2012"), _split, CLASS_NAMES
    )
