"""From a record to what a detector takes, with images read as pre-training reads them."""

import contextlib
import copy
import logging
import os

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager

from moco_det.data.images import UnreadableImage, decode_rgb
from moco_det.data.label_images import read_labels

logger = logging.getLogger(__name__)
UNREADABLE_LIST = "unreadable_images.txt"


def read_image(record: dict, image_format: str) -> np.ndarray:
    """The image of a record, H x W x 3, uint8: as :func:`moco_det.data.images.decode_rgb` gives it.

    Where the labels were drawn on the pixels as they are stored, which their ``width`` and ``height`` show, an
    EXIF orientation is left alone: the boxes would be elsewhere.

    Args:
        image_format: "RGB" or "BGR".

    Raises:
        UnreadableImage: it cannot be decoded; ValueError: it is of another size than its labels say.
    """
    path = PathManager.get_local_path(record["file_name"])
    image = decode_rgb(path)
    expected = (record.get("width", image.width), record.get("height", image.height))
    if image.size != expected:
        upright = image.size
        image = decode_rgb(path, upright=False)
        if image.size != expected:
            raise ValueError(
                f"image {path!r} has {upright[0]} x {upright[1]} pixels, but its labels say {expected[0]} x "
                f"{expected[1]}; give the image that was labeled"
            )
    pixels = np.asarray(image)
    return pixels[:, :, ::-1] if image_format == "BGR" else pixels


def add_size(record: dict, image: np.ndarray) -> None:
    """Set ``height`` and ``width`` to those of the image; a record may leave them out, or hold 64.0."""
    record["height"], record["width"] = image.shape[:2]


class RecordMapper(DatasetMapper):
    """detectron2's mapper, but for how images and label images are read."""

    def __call__(self, dataset_dict):
        record = copy.deepcopy(dataset_dict)
        labels_file = record.pop("sem_seg_file_name", None)
        labels = read_labels(labels_file) if labels_file and self.is_train else None
        inputs = T.AugInput(read_image(record, self.image_format), sem_seg=labels)
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


def forget_unreadable(cfg: CfgNode) -> None:
    """Remove the list of an earlier run in OUTPUT_DIR, before a new one writes its own."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(cfg.OUTPUT_DIR, UNREADABLE_LIST))


class SkipUnreadable:
    """A mapper that passes over training images that cannot be read, by the rule of pre-training.

    detectron2's loader takes another image where a mapper gives None. Each file is named in the log and in
    ``OUTPUT_DIR/unreadable_images.txt``, which all processes share: the share DATASETS.MAX_UNREADABLE holds for
    the distinct files that all workers of all ranks have met, before a resume too.
    """

    def __init__(self, mapper, cfg: CfgNode, num_images: int):
        """
        Args:
            num_images: of the training set; more than its share DATASETS.MAX_UNREADABLE stops the run.
        """
        self._mapper = mapper
        self._file = os.path.join(cfg.OUTPUT_DIR, UNREADABLE_LIST)
        self._max_share, self._num_images = cfg.DATASETS.MAX_UNREADABLE, num_images

    def __call__(self, record: dict) -> dict | None:
        try:
            return self._mapper(record)
        except UnreadableImage as error:
            self._note(error)
            return None

    def _note(self, error: UnreadableImage) -> None:
        # A line is written at once, so processes do not mix theirs; two may write the same one.
        with open(self._file, "a+", encoding="utf-8", errors="surrogateescape") as lines:
            lines.seek(0)
            found = {line.split("\t")[0] for line in lines}
            if error.path not in found:
                logger.warning(f"{error}; another image is taken for it")
                lines.write(f"{error.path}\t{error.reason}\n")
                found.add(error.path)
        if len(found) > self._max_share * self._num_images:
            raise ValueError(
                f"{error}; {len(found)} of {self._num_images} training images cannot be read, more than the "
                f"accepted share DATASETS.MAX_UNREADABLE {self._max_share}: fix or remove them (see "
                f"{self._file!r}), or raise DATASETS.MAX_UNREADABLE"
            ) from error
