"""The COCO 2017 layout: a folder of JPEGs a split, a file of instances (boxes, polygons), one of keypoints."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from moco_det.toyworld.layouts.coco_keypoints import keypoints_of, write_keypoints
from moco_det.toyworld.layouts.folders import save_jpeg
from moco_det.toyworld.polygons import mask_to_polygons
from moco_det.toyworld.scenes import Scene, SceneObject


def category_id(index: int) -> int:
    """The id of the class at an index. As in COCO, ids start at 1 and have gaps: every third is missing."""
    return index + index // 2 + 1


def write_coco(root: Path, split: str, classes: Sequence[str], scenes: Iterable[Scene]) -> None:
    """Write one split.

    Args:
        root: the COCO folder; may hold another split already.
        split: ``"train2017"`` or ``"val2017"``.
        classes: all classes, in the order of their ids.
        scenes: what to write.
    """
    images, annotations, keypoints = [], [], []
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    ids = {name: category_id(index) for index, name in enumerate(classes)}
    for image_id, scene in enumerate(scenes, start=1):
        name = f"{image_id:012d}.jpg"
        save_jpeg(scene.image, root / split / name)
        height, width, _ = scene.image.shape
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for placed in scene.objects:
            labels = {"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[placed.category]}
            annotations.append(labels | _instance(placed))
            keypoints.append(keypoints_of(placed))
    instances = {
        "info": {"description": "moco_det toy world"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": ids[name], "name": name, "supercategory": "object"} for name in classes],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances))
    write_keypoints(root / "annotations" / f"person_keypoints_{split}.json", instances, keypoints)


def _instance(placed: SceneObject) -> dict:
    x0, y0, x1, y1 = placed.box
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(placed.visible.sum()),
        "segmentation": mask_to_polygons(placed.visible),
        "iscrowd": 0,
    }
