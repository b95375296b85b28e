"""MODEL.WEIGHTS: encoders start from the backbone of any checkpoint that convert reads."""

import dataclasses
import logging
import os
from collections.abc import Sequence

from torch import Tensor, nn

from moco_det.weights.backbone_file import HOW_TO_TRUST, Preprocessing, UnsafePickleError, file_sha256
from moco_det.weights.backbone_tensors import STEP_COUNTER, check_backbone, in_channels
from moco_det.weights.sources import (
    agreed_arch,
    agreed_preprocessing,
    locate_backbone,
    preprocessing_notes,
    read_checkpoint,
)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What encoders start from: a backbone in memory, read and hashed once a run.

    Attributes:
        path, sha256: the file.
        source: what it is and which encoder of it was taken.
        arch: of the encoder, e.g. ``"resnet50"``.
        preprocessing: how it wants its images.
        tensors: torchvision's names and float32 tensors, without a head.
    """

    path: str
    sha256: str
    source: str
    arch: str
    preprocessing: Preprocessing
    tensors: dict[str, Tensor]


def read_initial_weights(
    path: str, arch_key: str, wanted_arch: str = "", wanted_channels: int = 0
) -> InitialWeights:
    """The weights that MODEL.WEIGHTS names.

    Args:
        path: the value of MODEL.WEIGHTS.
        arch_key, wanted_arch: the key that says what the encoder is, and its value; empty takes any.
        wanted_channels: INPUT.CHANNELS; 0 takes any.

    Raises:
        ValueError: it is no file, of no known family, damaged, of another architecture, or for images of other
            channels.
    """
    if not os.path.isfile(path):
        raise ValueError(
            f"MODEL.WEIGHTS {path!r} is no file (looked in {os.getcwd()!r}); give a checkpoint on disk"
        )
    try:
        found = locate_backbone(_read_safely(path))
        arch = agreed_arch(found)
        channels = in_channels(found.backbone)
        tensors, _ = check_backbone(found.backbone, arch, channels)
        preprocessing = agreed_preprocessing(found)
    except ValueError as error:
        raise ValueError(f"MODEL.WEIGHTS {path!r}: {error}") from error
    if wanted_arch and arch != wanted_arch:
        raise ValueError(f"MODEL.WEIGHTS {path!r} is a {arch}; {arch_key} is {wanted_arch}: make them agree")
    if wanted_channels not in (0, channels):
        raise ValueError(
            f"MODEL.WEIGHTS {path!r} are for images of {channels} channel{'s' * (channels > 1)}, and "
            "INPUT.CHANNELS "
            f"is {wanted_channels}: make other weights of them by tools/convert_to_d2.py {path} OUT.pkl "
            f"--channels {wanted_channels}, or take others"
        )
    for note in (*found.notes, *preprocessing_notes(found)):
        logger.warning(f"MODEL.WEIGHTS {path!r}: {note}")
    which = f", {found.encoder} encoder" if found.encoder else ""
    return InitialWeights(path, file_sha256(path), f"{found.family}{which}", arch, preprocessing, tensors)


def _read_safely(path: str) -> object:
    try:
        return read_checkpoint(path)
    except ValueError as error:
        if not isinstance(error.__cause__, UnsafePickleError):
            raise
        # read_checkpoint names an option that only convert has
        raise ValueError(f"{error.__cause__}; {HOW_TO_TRUST.format(path)}") from error


def load_encoders(encoders: Sequence[nn.Module], weights: InitialWeights) -> None:
    """Load a backbone into encoders; their heads stay as they are, random.

    Args:
        encoders: torchvision ResNets; where they end in a head ``fc``, it is not loaded.
    """
    for encoder in encoders:
        result = encoder.load_state_dict(weights.tensors, strict=False)
        left = [n for n in result.missing_keys if not n.startswith("fc.") and not n.endswith(STEP_COUNTER)]
        assert not left and not result.unexpected_keys, (left, result.unexpected_keys)
    who = "Both encoders start" if len(encoders) > 1 else "The encoder starts"
    logger.info(
        f"{who} from {weights.path} ({weights.source}): {len(weights.tensors)} tensors; heads are random"
    )
