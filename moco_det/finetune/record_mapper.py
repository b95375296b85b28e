"""Makes what a detector takes from a record, with images read as pre-training reads them."""

import copy
import logging

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager

from moco_det.data.decoding import UnreadableImage
from moco_det.data.image_format import ImageFormat
from moco_det.data.label_images import read_labels
from moco_det.data.unreadable import UnreadableLog

logger = logging.getLogger(__name__)


def size_of_labels(record: dict, upright: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the pixels that a record's labels were drawn on; of the upright image where it has none.

    Where they are not the upright image's but those of the image as it is stored, labels were drawn on the latter.
    """
    return record.get("width", upright[0]), record.get("height", upright[1])


def read_image(record: dict, image_format: ImageFormat) -> np.ndarray:
    """The image of a record, H x W x C, uint8: as :meth:`ImageFormat.decode` gives it, in the order of ``images``.

    Where labels were drawn on the pixels as they are stored (:func:`size_of_labels`), an EXIF orientation is
    left alone: the boxes would be elsewhere.

    Raises:
        UnreadableImage: it cannot be decoded; ValueError: it is of another size than its labels say.
    """
    path = PathManager.get_local_path(record["file_name"])
    pixels = image_format.decode(path)
    width, height = upright = pixels.shape[:0:-1]
    expected = size_of_labels(record, upright)
    if upright != expected:
        pixels = image_format.decode(path, upright=False)
        if pixels.shape[:0:-1] != expected:
            raise ValueError(
                f"image {path!r} has {width} x {height} pixels, but its labels say {expected[0]} x "
                f"{expected[1]}; give the image that was labeled"
            )
    if image_format.channel_order == "BGR":
        pixels = torch.cat((pixels[:3].flip(0), pixels[3:]))
    return pixels.permute(1, 2, 0).numpy()


def add_size(record: dict, image: np.ndarray) -> None:
    """Set ``height`` and ``width`` to those of the image; a record may leave them out, or hold 64.0."""
    record["height"], record["width"] = image.shape[:2]


class AugInput(T.AugInput):
    """detectron2's, but the channels of what is no RGB image are transformed one by one.

    Images of four channels would be taken for RGB with transparency, and colors be mixed with it.
    """

    def transform(self, tfm: T.Transform) -> None:
        image = self.image
        if image.shape[2] != 3:
            self.image = image[:, :, 0]
        super().transform(tfm)
        if image.shape[2] != 3:
            channels = np.moveaxis(image, 2, 0)[1:]
            self.image = np.stack([self.image, *map(tfm.apply_image, channels)], axis=2)


class RecordMapper(DatasetMapper):
    """detectron2's mapper, but for how images and label images are read."""

    @classmethod
    def from_config(cls, cfg, is_train: bool = True):
        return {**super().from_config(cfg, is_train), "image_format": ImageFormat.from_config(cfg)}

    def __call__(self, dataset_dict):
        record = copy.deepcopy(dataset_dict)
        labels_file = record.pop("sem_seg_file_name", None)
        labels = read_labels(labels_file) if labels_file and self.is_train else None
        inputs = AugInput(read_image(record, self.image_format), sem_seg=labels)
        add_size(record, inputs.image)
        transforms = self.augmentations(inputs)
        shape = inputs.image.shape[:2]
        record["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        if labels is not None:
            record["sem_seg"] = torch.as_tensor(inputs.sem_seg.astype(np.int64))
        if self.proposal_topk is not None:
            utils.transform_proposals(record, shape, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, shape)
        return record


class SkipUnreadable:
    """A mapper that passes over training images that cannot be read, up to the fraction DATASETS.MAX_UNREADABLE.

    detectron2's loader takes another image where a mapper gives None. The list is shared: the fraction holds for
    the distinct files that all workers of all ranks have met, before a resume too. No worker knows how many images
    the others have met, so it is a fraction of the whole training set.
    """

    def __init__(self, mapper, cfg: CfgNode, num_images: int):
        """
        Args:
            num_images: of the training set.
        """
        self._mapper, self._num_images = mapper, num_images
        self._log = UnreadableLog(
            cfg.OUTPUT_DIR, max_share=cfg.DATASETS.MAX_UNREADABLE, num_images=num_images
        )

    def __call__(self, record: dict) -> dict | None:
        try:
            return self._mapper(record)
        except UnreadableImage as error:
            if self._log.update([(error.path, error.reason)], self._num_images):
                logger.warning(f"{error}; another image is taken for it")
            return None
