"""LVIS v0.5 and v1 (Gupta et al. 2019) as detectron2 lays them out on disk, read without the package ``lvis``.

Below ``$DETECTRON2_DATASETS``: ``lvis/lvis_v1_{train,val}.json``, ``lvis/lvis_v0.5_{train,val}.json`` and COCO's
images in ``coco/{train,val}2017/``.
"""

import json
import os
from collections import defaultdict
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import get_lvis_instances_meta
from detectron2.structures import BoxMode

from moco_det.utils.files import datasets_root

# Folders below coco/ in which the images lie. LVIS v1 took most of its validation images from COCO's training set.
_FOLDERS = {
    "lvis_v0.5_train": ("train2017",),
    "lvis_v0.5_val": ("val2017",),
    "lvis_v1_train": ("train2017",),
    "lvis_v1_val": ("train2017", "val2017"),
}
# detectron2 registers lvis_v1_train and so on itself, with a reader that fails in the package `lvis` (np.float,
# gone since numpy 1.24). To replace its entries would change what other code in the process gets: hence a prefix.
PREFIX = "moco_"


def register_lvis_datasets(root: str | None = None) -> None:
    """Register ``moco_lvis_{v0.5,v1}_{train,val}``; again does no harm.

    Args:
        root: the folder with ``coco`` and ``lvis``; default :func:`moco_det.utils.files.datasets_root`.
    """
    root = root or datasets_root()
    for name, folders in _FOLDERS.items():
        json_file = os.path.join(root, "lvis", f"{name}.json")
        metadata = get_lvis_instances_meta(name)  # thing_classes; of v1 also class_image_count
        register_lvis(
            PREFIX + name,
            json_file,
            os.path.join(root, "coco"),
            ids=range(1, len(metadata["thing_classes"]) + 1),
            folders=folders,
            **metadata,
        )


def register_lvis(
    name: str, json_file: str, image_root: str, ids: Sequence[int], folders: Sequence[str], **metadata
) -> None:
    """Register a data set in the format of LVIS, in place of one that has the name.

    Args:
        json_file: the annotations.
        image_root: the folder that holds ``folders``.
        ids: category ids of the file, in the order of ``metadata["thing_classes"]``.
        folders: where the images lie. The first is for images without ``coco_url``.
    """
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    contiguous = {category: index for index, category in enumerate(ids)}
    DatasetCatalog.register(name, lambda: load_lvis(json_file, image_root, contiguous, folders[0]))
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        image_folders=tuple(os.path.join(image_root, folder) for folder in folders),
        evaluator_type="lvis",
        thing_dataset_id_to_contiguous_id=contiguous,
        **metadata,
    )


def load_lvis(json_file: str, image_root: str, contiguous: dict[int, int], folder: str) -> list[dict]:
    """Read annotations into detectron2's form, images in the order of their ids.

    Each image also has its ``neg_category_ids`` and ``not_exhaustive_category_ids``, as they stand in the file.

    Args:
        contiguous: class index by category id, of every category of the file.
        folder: below ``image_root``, holds the images that have no ``coco_url``.

    Raises:
        ValueError: the file has other categories, or an annotation has no valid polygon.
    """
    with open(json_file) as file:
        content = json.load(file)
    found = {category["id"] for category in content["categories"]}
    if found != set(contiguous):
        raise ValueError(
            f"{json_file} has {len(found)} categories with ids from {min(found)} to {max(found)}; expected "
            f"{len(contiguous)} from {min(contiguous)} to {max(contiguous)}: it is of another version of LVIS"
        )
    annotations = defaultdict(list)
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(_instance(annotation, contiguous, json_file))
    return [
        {
            "file_name": os.path.join(image_root, *image_place(image, folder)),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "neg_category_ids": image["neg_category_ids"],
            "not_exhaustive_category_ids": image["not_exhaustive_category_ids"],
            "annotations": annotations[image["id"]],
        }
        for image in sorted(content["images"], key=lambda image: image["id"])
    ]


def image_place(image: dict, folder: str) -> tuple[str, str]:
    """Folder and file name of an image, as :func:`load_lvis` looks for it."""
    if "coco_url" in image:  # …/train2017/000000155379.jpg
        return tuple(image["coco_url"].split("/")[-2:])
    # v0.5 names images as COCO did in 2014, COCO_val2014_000000001268.jpg, but means the files of 2017.
    name = image["file_name"]
    return folder, name.split("_")[-1] if name.startswith("COCO_") else name


def _instance(annotation: dict, contiguous: dict[int, int], json_file: str) -> dict:
    polygons = annotation["segmentation"]
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise ValueError(
            f"{json_file}: annotation {annotation['id']} has a polygon of less than 3 points; fetch the file again"
        )
    return {
        "bbox": annotation["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": contiguous[annotation["category_id"]],
        "segmentation": polygons,
    }


def check_reader(name: str) -> None:
    """Refuse the LVIS data sets that only detectron2's reader could read.

    Raises:
        ValueError: names ours, where there is one.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") == "lvis" and "image_folders" not in metadata.as_dict():
        ours = PREFIX + name if name in _FOLDERS else "one of " + ", ".join(PREFIX + n for n in _FOLDERS)
        raise ValueError(
            f"data set {name!r} is read by detectron2 with the package lvis, which fails since numpy 1.24; "
            f"take {ours}"
        )


register_lvis_datasets()
