"""Which metric a data set is measured by: its metadata says so, not its name."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    DatasetEvaluator,
    SemSegEvaluator,
)

from moco_det.data.label_images import read_labels
from moco_det.finetune.classes import complete_metadata
from moco_det.finetune.coco_evaluator import build_coco_evaluator
from moco_det.finetune.datasets import register_needed_files
from moco_det.finetune.lvis_evaluator import LvisEvaluator, check_lvis_package
from moco_det.finetune.voc_evaluator import VocEvaluator


class TidyCityscapesInstanceEvaluator(CityscapesInstanceEvaluator):
    """detectron2's, without the file ``matches.json`` that the official script leaves in the current folder."""

    def __init__(self, dataset_name: str):
        super().__init__(dataset_name)
        known = MetadataCatalog.get(dataset_name).as_dict()
        self._metadata = Metadata(**known | {"gt_dir": os.path.abspath(known["gt_dir"])})

    def evaluate(self) -> Mapping[str, Mapping[str, float]] | None:
        current = os.getcwd()
        with tempfile.TemporaryDirectory(prefix="cityscapes_matches_") as folder:
            os.chdir(folder)
            try:
                return super().evaluate()
            finally:
                os.chdir(current)


def _pascal_voc(cfg: CfgNode, name: str) -> DatasetEvaluator:
    return VocEvaluator(name)


def _lvis(cfg: CfgNode, name: str) -> DatasetEvaluator:
    return LvisEvaluator(name, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"))


def _sem_seg(cfg: CfgNode, name: str) -> DatasetEvaluator:
    return SemSegEvaluator(
        name, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"), sem_seg_loading_fn=read_labels
    )


# The official script reads predictions and truth from files of this machine.
_CITYSCAPES = ("cityscapes_sem_seg", "cityscapes_instance")
_EVALUATORS = {
    "coco": build_coco_evaluator,
    "lvis": _lvis,
    "pascal_voc": _pascal_voc,
    "sem_seg": _sem_seg,
    "cityscapes_sem_seg": lambda cfg, name: CityscapesSemSegEvaluator(name),
    "cityscapes_instance": lambda cfg, name: TidyCityscapesInstanceEvaluator(name),
}


def register_evaluator(
    kind: str,
    build: Callable[[CfgNode, str], DatasetEvaluator],
    needed_files: Callable[[Metadata], Sequence[str]] = lambda _: (),
) -> None:
    """Add a kind of data set, measured by an evaluator from outside; again does no harm.

    Args:
        kind: the metadata's ``evaluator_type``.
        build: makes the evaluator, of a config and a data set's name.
        needed_files: see :func:`moco_det.finetune.datasets.register_needed_files`.
    """
    _EVALUATORS[kind] = build
    register_needed_files(kind, needed_files)


def check_evaluator(name: str, machines: int = 1) -> None:
    """Refuse a data set that no evaluator fits.

    Args:
        name: the data set.
        machines: on how many the run will be.

    Raises:
        ValueError: its metadata names no ``evaluator_type``, one that is not known here, or one that works on a
            single machine only; or the evaluator needs a package that is not there, or an older one.
    """
    complete_metadata(name)
    kind = MetadataCatalog.get(name).get("evaluator_type")
    if kind not in _EVALUATORS:
        raise ValueError(
            f"DATASETS.TEST: the metadata of {name!r} has evaluator_type {kind!r}; expected one of "
            f"{sorted(_EVALUATORS)} (set it with MetadataCatalog.get({name!r}).evaluator_type = …)"
        )
    if kind == "lvis":
        check_lvis_package()
    if kind in _CITYSCAPES and machines > 1:
        raise ValueError(
            f"DATASETS.TEST: {name!r} is measured by Cityscapes' script, which works on one machine; found "
            f'{machines}. Train with DATASETS.TEST "()" and measure later with --eval-only on one'
        )
    if kind in _CITYSCAPES and not hasattr(np, "in1d"):
        raise ValueError(
            f"DATASETS.TEST: {name!r} is measured by Cityscapes' script, which calls numpy.in1d; NumPy "
            f"{np.__version__} has no such function. Install an older one: pip install 'numpy<2.4'"
        )


def build_evaluator(cfg: CfgNode, name: str) -> DatasetEvaluator:
    """The evaluator of a registered data set.

    Raises:
        ValueError: see :func:`check_evaluator`.
    """
    check_evaluator(name)
    return _EVALUATORS[MetadataCatalog.get(name).evaluator_type](cfg, name)
