"""Which metric a data set is measured by: its metadata says so, not its name."""

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator


def _coco(cfg: CfgNode, name: str) -> DatasetEvaluator:
    return COCOEvaluator(
        name,
        output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"),
        # pycocotools everywhere: detectron2's compiled evaluator is "unofficial", and not on every machine.
        use_fast_impl=False,
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,  # empty: COCO's, of its 17 points
    )


def _pascal_voc(cfg: CfgNode, name: str) -> DatasetEvaluator:
    return PascalVOCDetectionEvaluator(name)


_EVALUATORS = {"coco": _coco, "pascal_voc": _pascal_voc}


def check_evaluator(name: str) -> None:
    """Refuse a data set that no evaluator fits.

    Raises:
        ValueError: its metadata names no ``evaluator_type``, or one that is not known here.
    """
    kind = MetadataCatalog.get(name).get("evaluator_type")
    if kind not in _EVALUATORS:
        raise ValueError(
            f"DATASETS.TEST: the metadata of {name!r} has evaluator_type {kind!r}; expected one of "
            f"{sorted(_EVALUATORS)} (set it with MetadataCatalog.get({name!r}).evaluator_type = …)"
        )


def build_evaluator(cfg: CfgNode, name: str) -> DatasetEvaluator:
    """The evaluator of a registered data set.

    Raises:
        ValueError: see :func:`check_evaluator`.
    """
    check_evaluator(name)
    return _EVALUATORS[MetadataCatalog.get(name).evaluator_type](cfg, name)
