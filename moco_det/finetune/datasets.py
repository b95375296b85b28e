"""Data sets of fine-tuning: what is unknown, missing or of other classes is said before training."""

import contextlib
import difflib
import os
from collections.abc import Callable, Iterator, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from moco_det.data.datasets import segmentation
from moco_det.data.datasets.downloads import how_to_get
from moco_det.data.datasets.lvis import check_reader
from moco_det.finetune.classes import check_classes, complete_metadata
from moco_det.utils.files import datasets_root

# Of a person in COCO.
COCO_KEYPOINTS = 17
# Of each kind of data set (metadata evaluator_type), the files and folders that its reader opens.
_NEEDED = {
    "pascal_voc": lambda meta: [
        os.path.join(meta.dirname, "ImageSets", "Main", f"{meta.split}.txt"),
        os.path.join(meta.dirname, "Annotations"),
        os.path.join(meta.dirname, "JPEGImages"),
    ],
    # A set that a function of the user's makes has neither.
    "coco": lambda meta: [meta.get(part) for part in ("json_file", "image_root") if meta.get(part)],
    "lvis": lambda meta: [meta.json_file, *meta.image_folders],
    **segmentation.NEEDED,
}


def register_needed_files(kind: str, needed: Callable[[Metadata], Sequence[str]]) -> None:
    """Say what the reader and the metric of a kind of data set open; it is looked for before a run starts.

    Args:
        kind: the metadata's ``evaluator_type``.
        needed: gives files and folders by a data set's metadata, whose ``where_from`` (optional) says by path how
            to get what is missing. It may raise ValueError for a package that reading them takes.
    """
    _NEEDED[kind] = needed


def check_datasets(cfg: CfgNode, names: tuple[str, ...]) -> None:
    """Refuse data sets that are unknown, not where they are looked for, or of other classes than the config's.

    Raises:
        ValueError: names the data set, what is missing and where it was looked for, and the fix.
    """
    if not names:
        raise ValueError(
            "DATASETS.TRAIN and DATASETS.TEST are empty; give e.g. DATASETS.TEST \"('toy_coco_val',)\""
        )
    for name in names:
        if name not in DatasetCatalog:
            near = difflib.get_close_matches(name, DatasetCatalog.list(), n=1, cutoff=0)
            raise ValueError(f"data set {name!r} is not registered; closest match: {near[0]!r}")
        complete_metadata(name)
        check_reader(name)
        segmentation.check_packages(name)
        _check_files(name)
    check_classes(cfg, names)
    _check_sigmas(cfg)


@contextlib.contextmanager
def names_faulty_labels(names: Sequence[str]) -> Iterator[None]:
    """Readers of labels meet a fault with whatever exception it leads to; here it becomes a sentence.

    Raises:
        ValueError: names the data sets, what was met, and the tool that says more.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"the labels of {', '.join(names)} cannot be read ({reason}); tools/check_datasets.py --datasets "
            f"{' '.join(names)} lists what is wrong with them"
        ) from error


def needed_files(name: str) -> list[str]:
    """The files and folders that reading and measuring a data set opens first; none of a kind not known here."""
    metadata = MetadataCatalog.get(name)
    return _NEEDED.get(metadata.get("evaluator_type"), lambda _: [])(metadata)


def _check_files(name: str) -> None:
    where_from = MetadataCatalog.get(name).get("where_from", {})
    for path in needed_files(name):
        if not os.path.exists(path):
            raise ValueError(
                f"data set {name!r} is missing: {path!r} does not exist. It was looked for in "
                f"{os.path.abspath(datasets_root())!r} "
                f"(DETECTRON2_DATASETS={os.getenv('DETECTRON2_DATASETS')!r}); "
                f"{where_from.get(path) or how_to_get(name, path)}, or set DETECTRON2_DATASETS to the folder that "
                "holds it"
            )


def _check_sigmas(cfg: CfgNode) -> None:
    """detectron2 finds the same out at the first evaluation: after the training."""
    if not cfg.MODEL.KEYPOINT_ON:
        return
    found = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    sigmas = len(cfg.TEST.KEYPOINT_OKS_SIGMAS) or COCO_KEYPOINTS
    if sigmas != found:
        raise ValueError(
            f"TEST.KEYPOINT_OKS_SIGMAS stands for {sigmas} keypoints ({COCO_KEYPOINTS} of COCO when empty), but "
            f"the data have {found}; give one sigma a keypoint, such as TEST.KEYPOINT_OKS_SIGMAS "
            f'"({", ".join(["0.05"] * found)})"'
        )
