"""Which mapper turns a record into what the model takes: that of detectors, unless a registered one fits."""

from collections.abc import Callable

from detectron2.config import CfgNode

from moco_det.finetune.record_mapper import RecordMapper
from moco_det.finetune.segmentation_mapper import build_mapper as build_segmentation_mapper

# A builder takes the config and whether it is for training, and gives a mapper, or None where it does not fit.
Builder = Callable[[CfgNode, bool], Callable[[dict], dict] | None]
_BUILDERS: list[Builder] = [build_segmentation_mapper]


def register_mapper(builder: Builder) -> None:
    """Add a builder, which is asked after those that are there; again does no harm."""
    if builder not in _BUILDERS:
        _BUILDERS.append(builder)


def build_mapper(cfg: CfgNode, is_train: bool) -> Callable[[dict], dict]:
    """The mapper of the first builder that fits, else :class:`RecordMapper`."""
    for builder in _BUILDERS:
        mapper = builder(cfg, is_train)
        if mapper is not None:
            return mapper
    return RecordMapper(cfg, is_train)
