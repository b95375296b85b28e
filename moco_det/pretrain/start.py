"""MODEL.WEIGHTS: both encoders start from the backbone of any checkpoint that convert reads."""

import dataclasses
import logging
import os

from torch import Tensor, nn

from moco_det.backbone_file import HOW_TO_TRUST, Preprocessing, UnsafePickleError, file_sha256
from moco_det.backbone_tensors import STEP_COUNTER, check_backbone
from moco_det.sources import agreed_arch, agreed_preprocessing, locate_backbone, read_checkpoint

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
        path, sha256: the file.
        source: what it is and which encoder of it was taken.
        tensors: torchvision's names and float32 tensors, without a head.
    """

    path: str
    sha256: str
    source: str
    tensors: dict[str, Tensor]


def read_start(cfg) -> Start:
    """The weights that MODEL.WEIGHTS names.

    Raises:
        ValueError: it is no file, of no known family, damaged, of another architecture than MODEL.MOCO.ARCH,
            or made for images normalised otherwise.
    """
    path = cfg.MODEL.WEIGHTS
    if not os.path.isfile(path):
        raise ValueError(
            f"MODEL.WEIGHTS {path!r} is no file (looked in {os.getcwd()!r}); give a checkpoint on disk"
        )
    try:
        found = locate_backbone(_read_safely(path))
        arch = agreed_arch(found)
        tensors, _ = check_backbone(found.backbone, arch)
        preprocessing = agreed_preprocessing(found)
    except ValueError as error:
        raise ValueError(f"MODEL.WEIGHTS {path!r}: {error}") from error
    if arch != cfg.MODEL.MOCO.ARCH:
        raise ValueError(
            f"MODEL.WEIGHTS {path!r} is a {arch}; MODEL.MOCO.ARCH is {cfg.MODEL.MOCO.ARCH}: make them agree"
        )
    _check_preprocessing(cfg, preprocessing)
    which = f", {found.encoder} encoder" if found.encoder else ""
    return Start(path, file_sha256(path), f"{found.family}{which}", tensors)


def _read_safely(path: str):
    try:
        return read_checkpoint(path)
    except ValueError as error:
        if not isinstance(error.__cause__, UnsafePickleError):
            raise
        # read_checkpoint names an option that convert has and pre-training has not
        raise ValueError(f"{error.__cause__}; {HOW_TO_TRUST.format(path)}") from error


def _check_preprocessing(cfg, wanted: Preprocessing) -> None:
    if wanted.format != "RGB" or wanted.stride_in_1x1:
        raise ValueError(
            f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} want {wanted.format} images and have stride_in_1x1 "
            f"{wanted.stride_in_1x1}; pre-training has RGB and the stride in the 3x3: take other weights"
        )
    for key, is_now, was in (
        ("MODEL.PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN, wanted.pixel_mean),
        ("MODEL.PIXEL_STD", cfg.MODEL.PIXEL_STD, wanted.pixel_std),
    ):
        if tuple(map(float, is_now)) != tuple(map(float, was)):
            raise ValueError(
                f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} were trained with {key} {list(was)}, this run has "
                f'{list(is_now)}: give {key} "{list(was)}"'
            )


def start_from(encoders: list[nn.Module], start: Start) -> None:
    """Load a backbone into encoders; their heads stay as they are, random.

    Args:
        encoders: torchvision ResNets that end in a head ``fc``.
    """
    for encoder in encoders:
        result = encoder.load_state_dict(start.tensors, strict=False)
        left = [n for n in result.missing_keys if not n.startswith("fc.") and not n.endswith(STEP_COUNTER)]
        assert not left and not result.unexpected_keys, (left, result.unexpected_keys)
    who = "Both encoders start" if len(encoders) > 1 else "The encoder starts"
    logger.info(f"{who} from {start.path} ({start.source}): {len(start.tensors)} tensors; heads are random")
