"""DensePose R-CNN on moco_det. Importing it registers heads, data sets, mapper and evaluator."""

from moco_densepose import roi_heads as _roi_heads  # noqa: F401
from moco_densepose.config import add_densepose_config
from moco_densepose.datasets import EVALUATOR, needed_files, register_densepose_datasets
from moco_densepose.evaluator import build_densepose_evaluator
from moco_densepose.mapper import build_densepose_mapper
from moco_det.finetune.evaluators import register_evaluator
from moco_det.finetune.mappers import register_mapper

__all__ = ["add_densepose_config", "register_densepose_datasets"]

register_densepose_datasets()
register_mapper(build_densepose_mapper)
register_evaluator(EVALUATOR, build_densepose_evaluator, needed_files)
