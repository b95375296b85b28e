"""The evaluator of data sets with dense pose: GPS AP, beside detectron2's AP of the boxes."""

import json
import logging

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from pycocotools import mask as rle

from moco_densepose.average_precision import MAX_DETECTIONS, ImagePair, average_precisions
from moco_densepose.body_tables import BodyTables, read_body_tables
from moco_densepose.charts import NUM_GROUPS
from moco_densepose.gps import Detection, read_person, similarity

logger = logging.getLogger(__name__)


def detections_of(instances: Instances, image_id: int) -> list[Detection]:
    """A model's ``instances`` with ``pred_densepose``, in the form in which the metric reads them."""
    boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    scores = instances.scores.tolist()
    return [
        Detection(image_id, score, tuple(box), instances.pred_densepose.resampled(index, box).cpu().numpy())
        for index, (box, score) in enumerate(zip(boxes, scores, strict=True))
    ]


class GpsEvaluator(DatasetEvaluator):
    """Collects the detections of all processes; the main process measures them.

    Args:
        name: a registered data set; its metadata have ``json_file`` and ``body_tables``.
        mean_distances: NUM_GROUPS + 1, used in place of the tables' own; empty: the tables'.

    Raises:
        ValueError: another number of mean distances.
    """

    def __init__(self, name: str, mean_distances: tuple[float, ...] = ()):
        if len(mean_distances) not in (0, NUM_GROUPS + 1):
            raise ValueError(
                f"TEST.DENSEPOSE_MEAN_DISTANCES has {len(mean_distances)} numbers; give {NUM_GROUPS + 1} (a 0, "
                "then one a group of charts), or none"
            )
        self._metadata = MetadataCatalog.get(name)
        self._mean_distances = mean_distances
        self.reset()

    def reset(self):
        self._detections = []

    def process(self, inputs, outputs):
        """Take ``instances`` with ``pred_densepose``; the best MAX_DETECTIONS of an image count."""
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"]
            best = torch.argsort(instances.scores, descending=True, stable=True)[:MAX_DETECTIONS]
            self._detections += detections_of(instances[best], image["image_id"])

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """``{"densepose_gps": {"AP": 48.3, …}}`` in percent. None on processes other than the main one."""
        comm.synchronize()
        gathered = comm.gather(self._detections)
        if not comm.is_main_process():
            return None
        tables = read_body_tables(*self._metadata.body_tables)
        means = tables.mean_distances.round(4).tolist()
        logger.info(f"{tables.num_vertices} vertices; mean distances by the tables: {means}")
        if self._mean_distances:
            logger.info(f"Mean distances given by the config, and used: {list(self._mean_distances)}")
            tables.mean_distances = np.array(self._mean_distances)
        with open(self._metadata.json_file) as file:
            truth = json.load(file)
        metrics = gps_average_precision(truth, [d for process in gathered for d in process], tables)
        logger.info(f"Evaluation results for densepose_gps:\n{create_small_table(metrics)}")
        return {"densepose_gps": metrics}


def gps_average_precision(truth: dict, detections: list[Detection], tables: BodyTables) -> dict[str, float]:
    """AP, AP50, AP75, APm and APl in percent.

    Args:
        truth: what an annotation file holds, of one category.

    Raises:
        ValueError: it has more than one category.
    """
    if len(truth["categories"]) != 1:
        raise ValueError(
            f"the annotations have {len(truth['categories'])} categories; GPS is measured on one, people"
        )
    people, found = ({image["id"]: [] for image in truth["images"]} for _ in range(2))
    for annotation in truth["annotations"]:
        people[annotation["image_id"]].append(annotation)
    for detection in detections:
        found[detection.image_id].append(detection)
    return average_precisions([_pair(people[image], found[image], tables) for image in people])


def _pair(annotations: list[dict], detections: list[Detection], tables: BodyTables) -> ImagePair:
    detections = sorted(detections, key=lambda detection: -detection.score)[:MAX_DETECTIONS]
    people = [read_person(a, tables) if "dp_x" in a else None for a in annotations]
    gps = np.zeros((len(detections), len(people)))
    for d, detection in enumerate(detections):
        for g, person in enumerate(people):
            gps[d, g] = 0 if person is None else similarity(person, detection, tables)
    crowd = [int(a.get("iscrowd", 0)) for a in annotations]
    boxes = np.array([d.box for d in detections]).reshape(-1, 4)
    truth = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    overlap = rle.iou(boxes, truth, crowd) if len(boxes) and len(truth) else gps
    return ImagePair(
        gps,
        overlap,
        np.array([d.score for d in detections]),
        boxes[:, 2] * boxes[:, 3],
        np.array([a["area"] for a in annotations]),
        np.array([p is not None for p in people], dtype=bool),
        np.array(crowd, dtype=bool),
    )


def build_densepose_evaluator(cfg, name: str) -> DatasetEvaluator:
    """GPS, and the AP of the boxes."""
    boxes = COCOEvaluator(name, tasks=("bbox",), output_dir=None, use_fast_impl=False)
    return DatasetEvaluators([boxes, GpsEvaluator(name, tuple(cfg.TEST.DENSEPOSE_MEAN_DISTANCES))])
