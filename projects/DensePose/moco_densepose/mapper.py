"""What the network reads in training: an image with its boxes and dense pose, moved together."""

import copy

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

from moco_densepose.annotations import DensePoseTargets, read_target
from moco_densepose.datasets import KEYS
from moco_densepose.symmetry import Symmetry, read_symmetry


class DensePoseMapper:
    """Makes of a record what ``GeneralizedRCNN`` takes; in training with ``gt_densepose`` in its instances."""

    @configurable
    def __init__(
        self,
        *,
        augmentations: list[T.Augmentation],
        image_format: str,
        symmetry: Symmetry | None,
        mask_on: bool,
    ):
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format, self.symmetry, self.mask_on = image_format, symmetry, mask_on

    @classmethod
    def from_config(cls, cfg):
        augmentations = utils.build_augmentation(cfg, True)
        if cfg.INPUT.CROP.ENABLED:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        flips = cfg.INPUT.RANDOM_FLIP != "none"
        return {
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "symmetry": read_symmetry(_symmetry_file(cfg.DATASETS.TRAIN)) if flips else None,
            "mask_on": cfg.MODEL.MASK_ON,
        }

    def __call__(self, record: dict) -> dict:
        record = copy.deepcopy(record)
        image = utils.read_image(record["file_name"], format=self.image_format)
        utils.check_image_size(record, image)
        inputs = T.AugInput(image)
        transforms = self.augmentations(inputs)
        shape = inputs.image.shape[:2]  # height, width
        record["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        people = [a for a in record.pop("annotations") if a.get("iscrowd", 0) == 0]
        targets = [read_target(person, transforms, self.symmetry) for person in people]
        for person in people:
            # detectron2 moves boxes of whole numbers in whole numbers, and cuts off what does not fit.
            person["bbox"] = [float(value) for value in person["bbox"]]
            for key in (*KEYS, "keypoints", *(() if self.mask_on else ("segmentation",))):
                person.pop(key, None)
        people = [utils.transform_instance_annotations(person, transforms, shape) for person in people]
        instances = utils.annotations_to_instances(people, shape)
        instances.gt_densepose = DensePoseTargets(targets)
        record["instances"] = utils.filter_empty_instances(instances)
        return record


def _symmetry_file(names: tuple[str, ...]) -> str:
    files = {MetadataCatalog.get(name).get("symmetry") for name in names}
    if len(files) != 1 or None in files:
        raise ValueError(
            f"DATASETS.TRAIN {names} name the symmetry tables {sorted(map(str, files))}; expected data sets of "
            "one body (metadata symmetry), or give INPUT.RANDOM_FLIP none"
        )
    return files.pop()


def build_densepose_mapper(cfg: CfgNode, is_train: bool) -> DensePoseMapper | None:
    """The mapper of training with dense pose; None where detectron2's own serves."""
    return DensePoseMapper(cfg) if is_train and cfg.MODEL.get("DENSEPOSE_ON", False) else None
