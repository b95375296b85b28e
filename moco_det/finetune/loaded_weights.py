"""A weight file, read and hashed once for a whole run of fine-tuning."""

import dataclasses
import logging
import os
import pickle
import re
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.utils.file_io import PathManager

from moco_det.weights.backbone_file import (
    HOW_TO_TRUST,
    BackboneFile,
    Preprocessing,
    UnsafePickleError,
    file_sha256,
    parse_backbone,
    refused_by_torch,
    restricted_load,
    with_record,
)

logger = logging.getLogger(__name__)

# A backbone tensor in a weight file.
IN_FILE = re.compile(r"(stem\.conv\d|res[2-5]\.\d+)\..+(?<!num_batches_tracked)")
_DETECTOR = ("backbone.", "roi_heads.", "proposal_generator.")


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """A weight file in memory.

    Attributes:
        location: what named it, e.g. the value of MODEL.WEIGHTS.
        content: what the file holds, as detectron2's checkpointer takes it.
        tensors: by detectron2's names.
        preprocessing: how the weights want their input; None where the file does not say.
        arch: the network's name, such as ``"resnet50"``; empty where the file does not say.
    """

    location: str
    sha256: str
    content: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    preprocessing: Preprocessing | None
    arch: str = ""

    @property
    def is_detector(self) -> bool:
        return any(name.startswith(_DETECTOR) for name in self.tensors)


def read_weights(location: str, key: str = "MODEL.WEIGHTS") -> LoadedWeights:
    """Read a weight file, without running code from it.

    Args:
        location: a path, or an address that detectron2 fetches (``detectron2://…``).
        key: what named the file, for messages.

    Raises:
        ValueError: the file is missing, cannot be fetched or read safely, or holds nothing of a detector; or
            it is a whole detector of Caffe2.
    """
    path = _local_path(location, key)
    if path.endswith(".pkl"):
        try:
            content = restricted_load(path)
            found = parse_backbone(content, path)
        except UnsafePickleError as error:
            raise ValueError(f"{key} {error}; {HOW_TO_TRUST.format(location)}") from error
    else:
        content, found = _read_torch(path, key)
    tensors = {name: torch.as_tensor(value) for name, value in found.tensors.items()}
    if "conv1_w" in tensors:
        tensors = _from_caffe2(location, key, tensors)
    arch = str(found.provenance.get("arch", ""))
    weights = LoadedWeights(location, file_sha256(path), content, tensors, found.preprocessing, arch)
    if not weights.is_detector and not any(map(IN_FILE.fullmatch, tensors)):
        raise ValueError(
            f"{key} {location!r} has no tensor under detectron2's names (but {some(tensors)}); "
            f"convert it first: tools/convert_to_d2.py {location} backbone.pkl"
        )
    return weights


def _local_path(location: str, key: str) -> str:
    try:
        # detectron2 takes options behind a question mark, as in model.pth?matching_heuristics=True.
        path = PathManager.get_local_path(location.partition("?")[0])
    except OSError as error:
        raise ValueError(f"{key} {location!r} could not be fetched: {error}") from error
    if not os.path.isfile(path):
        raise ValueError(
            f"{key} {location!r} does not exist (looked in {os.getcwd()!r}); "
            "tools/convert_to_d2.py writes such a file"
        )
    return path


def _read_torch(path: str, key: str) -> tuple[dict[str, Any], BackboneFile]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{key} {path!r} is no torch file of plain tensors: it {refused_by_torch(error)}; "
            f"{HOW_TO_TRUST.format(path)}"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{key} {path!r} is no torch file of plain tensors: {error}") from error
    content = content if isinstance(content, dict) else {}
    states = content.get("model", content)
    tensors = {name: value for name, value in states.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{key} {path!r} holds no tensors; expected backbone.pkl or a detector's .pth")
    record = content.get("moco_det")
    if isinstance(record, dict) and "provenance" not in record:  # of a checkpoint of pre-training
        record = None
    return content, with_record(tensors, record, path)


def _from_caffe2(location: str, key: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of a Caffe2 file (the MSRA weights) under the names by which detectron2 loads them."""
    tensors, _ = convert_c2_detectron_names(tensors)
    if any(name.startswith(_DETECTOR) for name in tensors):
        raise ValueError(
            f"{key} {location!r} is a whole detector of Caffe2; expected a backbone, such as "
            "--init supervised_msra names"
        )
    # Caffe's first convolution has a bias, for which no ResNet of detectron2 has a place.
    if tensors.pop("stem.conv1.bias", None) is not None:
        logger.info("conv1_b of the Caffe2 file is not used, as detectron2 does not use it")
    return tensors


def some(names: Iterable[str], count: int = 5) -> str:
    """The first names in alphabetic order, in one line."""
    names = sorted(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
