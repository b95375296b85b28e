"""COCO dense pose (2014) and the toy bodies under names of our own: upstream's ``densepose`` registers its own.

Below ``$DETECTRON2_DATASETS``: ``coco/annotations/densepose_{train,valminusminival,minival}2014.json``,
``coco/{train,val}2014/`` and the body model's tables in ``densepose/evaluation_data/``; the toy bodies in
``toy_bodies/``.
"""

import os
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from moco_densepose import toy_tables
from moco_det.utils.files import datasets_root

EVALUATOR = "densepose"
POINT_KEYS = ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V")
KEYS = (*POINT_KEYS, "dp_masks")
_URL = "https://dl.fbaipublicfiles.com/densepose"
# By split, the folder of its images.
COCO_SPLITS = {"train": "train2014", "valminusminival": "val2014", "minival": "val2014"}
TABLES = os.path.join("densepose", "evaluation_data")
# The tables: surface, index, distances (:func:`moco_densepose.body_tables.read_body_tables`) and the symmetry.
COCO_TABLES = ("SMPL_subdiv.mat", "SMPL_SUBDIV_TRANSFORM.mat", "Pdist_matrix.pkl")
COCO_SYMMETRY = "UV_symmetry_transforms.mat"
MAKE_TOY = "make them with projects/DensePose/make_toy_bodies.py FOLDER"


def register_densepose_datasets(root: str | None = None) -> None:
    """Register ``moco_densepose_coco_2014_{split}`` and ``moco_densepose_toy_{train,val}``; again does no harm.

    Args:
        root: the folder of all data sets; default :func:`moco_det.utils.files.datasets_root`.
    """
    root = root or datasets_root()
    tables = os.path.join(root, TABLES)
    for split, folder in COCO_SPLITS.items():
        json_file = os.path.join(root, "coco", "annotations", f"densepose_{split}2014.json")
        where = {json_file: f"fetch it from {_URL}/annotations/coco/{os.path.basename(json_file)}"}
        where |= {os.path.join(tables, name): f"fetch it from {_URL}/data/{name}" for name in COCO_TABLES}
        where[os.path.join(tables, COCO_SYMMETRY)] = f"fetch it from {_URL}/data/{COCO_SYMMETRY}"
        _register(
            f"moco_densepose_coco_2014_{split}",
            json_file,
            os.path.join(root, "coco", folder),
            body_tables=tuple(os.path.join(tables, name) for name in COCO_TABLES),
            symmetry=os.path.join(tables, COCO_SYMMETRY),
            training=split != "minival",
            where_from=where,
        )
    toy = os.path.join(root, "toy_bodies")
    surface, symmetry, distances = (
        os.path.join(toy, name) for name in (toy_tables.SURFACE, toy_tables.SYMMETRY, toy_tables.DISTANCES)
    )
    for split in ("train", "val"):
        json_file = os.path.join(toy, "annotations", f"densepose_{split}.json")
        image_dir = os.path.join(toy, split)
        _register(
            f"moco_densepose_toy_{split}",
            json_file,
            image_dir,
            body_tables=(surface, surface, distances),
            symmetry=symmetry,
            training=split == "train",
            where_from=dict.fromkeys((json_file, image_dir, surface, symmetry, distances), MAKE_TOY),
        )


def _register(name: str, json_file: str, image_root: str, **metadata) -> None:
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name, list(KEYS)))
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type=EVALUATOR,
        thing_classes=["person"],
        **metadata,
    )


def needed_files(metadata: Metadata) -> Sequence[str]:
    """What a data set's reader, and the mapper in training or else the metric, open."""
    tables = (metadata.symmetry,) if metadata.training else metadata.body_tables
    return (metadata.json_file, metadata.image_root, *tables)
