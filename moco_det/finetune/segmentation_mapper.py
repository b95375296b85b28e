"""What semantic segmentation reads: label images as indices, and training crops of one size."""

import logging

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from PIL import Image

from moco_det.data.image_format import ImageFormat
from moco_det.data.label_images import read_labels
from moco_det.finetune.record_mapper import AugInput, add_size, read_image

logger = logging.getLogger(__name__)


class RandomScale(T.Augmentation):
    """Scales height and width by one factor, sampled uniformly from ``low`` to ``high``."""

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low, self.high = low, high

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        factor = np.random.uniform(self.low, self.high)
        return T.ResizeTransform(
            height, width, max(1, round(height * factor)), max(1, round(width * factor)), Image.BILINEAR
        )


class SegmentationMapper:
    """Makes of a record (``file_name``, ``sem_seg_file_name``) what ``SemanticSegmentor`` takes.

    In training a scaled and flipped crop with its labels, padded where the image ends; in testing the image at
    INPUT.MIN_SIZE_TEST (0: its own size) without labels, which the evaluator reads itself.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: list[T.Augmentation],
        image_format: ImageFormat,
        num_classes: int,
        ignore_value: int,
    ):
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.num_classes, self.ignore_value = num_classes, ignore_value

    @classmethod
    def from_config(cls, cfg, is_train: bool):
        augmentations = _training_augmentations(cfg) if is_train else utils.build_augmentation(cfg, False)
        logger.info(f"Augmentations in {'training' if is_train else 'testing'}: {augmentations}")
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": ImageFormat.from_config(cfg),
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        }

    def __call__(self, record: dict) -> dict:
        record = dict(record)
        labels_file = record.pop("sem_seg_file_name")
        image = read_image(record, self.image_format)
        add_size(record, image)
        labels = self._read(labels_file, image.shape[:2]) if self.is_train else None
        inputs = AugInput(image, sem_seg=labels)
        self.augmentations(inputs)
        record["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        if self.is_train:
            record["sem_seg"] = torch.as_tensor(inputs.sem_seg.astype(np.int64))
        return record

    def _read(self, path: str, shape: tuple[int, ...]) -> np.ndarray:
        labels = read_labels(path)
        if labels.shape != shape:
            raise ValueError(
                f"label image {path!r} is {labels.shape} (height, width), expected its image's {shape}"
            )
        largest = labels[labels != self.ignore_value].max(initial=0)
        if largest >= self.num_classes:
            raise ValueError(
                f"label image {path!r} holds the label {largest}, expected 0 to {self.num_classes - 1} "
                f"(MODEL.SEM_SEG_HEAD.NUM_CLASSES is {self.num_classes}) or {self.ignore_value}"
            )
        return labels


def _training_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    crop = cfg.INPUT.CROP
    if not (crop.ENABLED and crop.TYPE == "absolute"):
        raise ValueError(
            f"INPUT.CROP.ENABLED is {crop.ENABLED} and INPUT.CROP.TYPE {crop.TYPE!r}; expected True and "
            "'absolute': semantic segmentation trains on crops of INPUT.CROP.SIZE pixels"
        )
    size = tuple(map(int, crop.SIZE))
    augmentations = [
        RandomScale(*cfg.INPUT.RANDOM_SCALE),
        # FixedSizeCrop alone would sample one number for both axes, so it only pads: crops along the diagonal
        # are not all crops. The mean color would be zero for the network; it has one value for all channels.
        T.RandomCrop("absolute", size),
        T.FixedSizeCrop(
            size,
            pad_value=float(np.mean(cfg.MODEL.PIXEL_MEAN)),
            seg_pad_value=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        ),
    ]
    if cfg.INPUT.RANDOM_FLIP != "none":
        horizontal = cfg.INPUT.RANDOM_FLIP == "horizontal"
        augmentations.append(T.RandomFlip(horizontal=horizontal, vertical=not horizontal))
    return augmentations


def build_mapper(cfg: CfgNode, is_train: bool) -> SegmentationMapper | None:
    """The mapper that a config's model needs; None for detectors."""
    if cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
        return None
    return SegmentationMapper(cfg, is_train=is_train)
