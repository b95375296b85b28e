"""sample_detections.json: what the finished detector sees in the first test images, for the report."""

import copy
import json
import os

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances
from torch import nn

from moco_det.finetune.mappers import build_mapper

NUM_IMAGES = 8
MIN_SCORE = 0.3


def write_sample_detections(cfg: CfgNode, model: nn.Module) -> str:
    """Run the model on the first NUM_IMAGES images of the first test set.

    Returns:
        the path of ``OUTPUT_DIR/sample_detections.json``: per image its file, the names of all classes, the true
        boxes, and the detections of score MIN_SCORE and more; boxes are x0, y0, x1, y1 in pixels.
    """
    name = cfg.DATASETS.TEST[0]
    classes = MetadataCatalog.get(name).thing_classes
    mapper = build_mapper(cfg, is_train=False)
    samples = []
    model.eval()
    for record in DatasetCatalog.get(name)[:NUM_IMAGES]:
        with torch.no_grad():
            instances = model([mapper(copy.deepcopy(record))])[0]["instances"].to("cpu")
        samples.append(
            {
                "file_name": record["file_name"],
                "classes": classes,
                "ground_truth": [_truth(a, classes) for a in record.get("annotations", [])],
                "detections": _detections(instances[instances.scores >= MIN_SCORE], classes),
            }
        )
    path = os.path.join(cfg.OUTPUT_DIR, "sample_detections.json")
    with open(path, "w") as file:
        json.dump(samples, file)
    return path


def _truth(annotation: dict, classes: list[str]) -> dict:
    box = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return {"bbox": [float(x) for x in box], "class": classes[annotation["category_id"]]}


def _detections(instances: Instances, classes: list[str]) -> list[dict]:
    boxes, labels = instances.pred_boxes.tensor.tolist(), instances.pred_classes.tolist()
    rows = zip(boxes, labels, instances.scores.tolist(), strict=True)
    return [{"bbox": box, "class": classes[label], "score": score} for box, label, score in rows]
