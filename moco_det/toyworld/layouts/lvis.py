"""The LVIS v1 layout: other annotations of the images of COCO, so it is written from the COCO layout's files.

As in LVIS, only some categories are looked for in an image: those found there are labeled, the others stand in
``neg_category_ids``, and of the rest nothing is said. The rarer a category, the fewer the images in which it is
looked for: a long tail from scenes that have none. ``not_exhaustive_category_ids`` holds the categories of which
instances were really left out.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from moco_det.data.datasets.toy_classes import lvis_categories

# Share of the images in which a category is looked for, by its frequency in LVIS.
SHARE = {"f": 1.0, "c": 0.5, "r": 0.25}
SPLITS = {"train": "train2017", "val": "val2017"}


def write_lvis(root: Path, classes: Sequence[str]) -> None:
    """Write ``lvis/lvis_v1_{train,val}.json``.

    Args:
        root: the toy world; holds the COCO layout.
        classes: all classes, in the order in which they take turns at being in front of the scenes.
    """
    categories = lvis_categories(classes)
    files = {split: _annotate(root, folder, categories) for split, folder in SPLITS.items()}
    for category in categories:  # counts are those of the training set, in both files
        own = [a for a in files["train"]["annotations"] if a["category_id"] == category["id"]]
        category["instance_count"] = len(own)
        category["image_count"] = len({a["image_id"] for a in own})
    (root / "lvis").mkdir()
    for split, content in files.items():
        path = root / "lvis" / f"lvis_v1_{split}.json"
        path.write_text(json.dumps(content | {"categories": categories}))


def _annotate(root: Path, folder: str, categories: list[dict]) -> dict:
    coco = json.loads((root / "coco" / "annotations" / f"instances_{folder}.json").read_text())
    number = {entry["id"]: n for n, entry in enumerate(coco["categories"])}
    images, annotations = [], []
    for index, image in enumerate(coco["images"]):
        objects = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        negative, not_exhaustive = [], []
        for n, category in enumerate(categories):
            if (index - n) % len(categories) >= SHARE[category["frequency"]] * len(categories):
                continue  # not looked for; never so for the class in front, number index % len(categories)
            own = [a for a in objects if number[a["category_id"]] == n]
            if not own:
                negative.append(category["id"])
            elif len(own) > 1 and index % 2 == 0:
                not_exhaustive.append(category["id"])
                own = own[:1]
            for entry in own:
                labels = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category["id"]}
                annotations.append(labels | {key: entry[key] for key in ("bbox", "area", "segmentation")})
        images.append(
            {
                "id": image["id"],
                "height": image["height"],
                "width": image["width"],
                "coco_url": f"http://toyworld.invalid/{folder}/{image['file_name']}",
                "neg_category_ids": negative,
                "not_exhaustive_category_ids": not_exhaustive,
            }
        )
    info = {"description": "moco_det toy world"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations}
