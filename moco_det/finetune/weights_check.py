"""Refuses a run whose weights are not what its config takes them for.

Before the model is built, the preprocessing that the file records is compared with the config. After
detectron2 has loaded the file (by name heuristics, forgiving whatever does not match), each backbone tensor of
the model is compared with the file's. Other files are said to be other files:

* a full detector (a run's ``model_final.pth``, a model zoo file): there is no init to check; every tensor is
  accounted for in the log, and ``--eval-only`` refuses a file that does not fill the whole model;
* ``--resume`` with a checkpoint in OUTPUT_DIR: MODEL.WEIGHTS is not read, so it is not checked.
"""

import contextlib
import dataclasses
import logging
import math
import os
import pickle
import re
from collections.abc import Iterable

import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import nn

from moco_det.backbone_file import (
    HOW_TO_TRUST,
    Preprocessing,
    UnsafePickleError,
    file_sha256,
    read_backbone,
    refused_by_torch,
)
from moco_det.finetune.inits import PREPROCESSING_KEYS, Init, preprocessing_of, read_init
from moco_det.model_zoo import list_inits
from moco_det.sources.layouts import IDENTITY_VAR

logger = logging.getLogger(__name__)

# A backbone tensor in a weight file, and in a detector (C4 has res5 in its head; the extra norm is no part of it).
_IN_FILE = re.compile(r"(stem\.conv\d|res[2-5]\.\d+)\..+(?<!num_batches_tracked)")
_IN_MODEL = re.compile(rf"(?:backbone\.(?:bottom_up\.)?|roi_heads\.)({_IN_FILE.pattern})")
_DETECTOR = ("backbone.", "roi_heads.", "proposal_generator.")


@dataclasses.dataclass(frozen=True)
class Weights:
    """A weight file: ``tensors`` by detectron2's names; ``preprocessing`` is None where the file does not say."""

    location: str
    sha256: str
    tensors: dict[str, torch.Tensor]
    preprocessing: Preprocessing | None

    @property
    def is_detector(self) -> bool:
        return any(name.startswith(_DETECTOR) for name in self.tensors)


def read_weights(location: str) -> Weights:
    """Read what MODEL.WEIGHTS names, without running code from it.

    Args:
        location: a path, or an address that detectron2 fetches (``detectron2://…``).

    Raises:
        ValueError: the file is missing, cannot be fetched or read safely, or holds nothing of a detector; or
            it is a whole detector of Caffe2.
    """
    path = _local_path(location)
    preprocessing = None
    if path.endswith(".pkl"):
        try:
            content = read_backbone(path)
        except UnsafePickleError as error:
            raise ValueError(f"MODEL.WEIGHTS {error}; {HOW_TO_TRUST.format(location)}") from error
        tensors, preprocessing = content.tensors, content.preprocessing
    else:
        tensors, preprocessing = _read_torch(path)
    tensors = {name: torch.as_tensor(value) for name, value in tensors.items()}
    if "conv1_w" in tensors:
        tensors = _from_caffe2(location, tensors)
    weights = Weights(location, file_sha256(path), tensors, preprocessing)
    if not weights.is_detector and not any(map(_IN_FILE.fullmatch, tensors)):
        raise ValueError(
            f"MODEL.WEIGHTS {location!r} has no tensor under detectron2's names (but {_some(tensors)}); "
            f"convert it first: tools/convert_to_d2.py {location} backbone.pkl"
        )
    return weights


def _local_path(location: str) -> str:
    try:
        # detectron2 takes options behind a question mark, as in model.pth?matching_heuristics=True.
        path = PathManager.get_local_path(location.partition("?")[0])
    except OSError as error:
        raise ValueError(f"MODEL.WEIGHTS {location!r} could not be fetched: {error}") from error
    if not os.path.isfile(path):
        raise ValueError(
            f"MODEL.WEIGHTS {location!r} does not exist (looked in {os.getcwd()!r}); "
            "tools/convert_to_d2.py writes such a file"
        )
    return path


def _read_torch(path: str) -> tuple[dict[str, torch.Tensor], Preprocessing | None]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"MODEL.WEIGHTS {path!r} is no torch file of plain tensors: it {refused_by_torch(error)}; "
            f"{HOW_TO_TRUST.format(path)}"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"MODEL.WEIGHTS {path!r} is no torch file of plain tensors: {error}") from error
    content = content if isinstance(content, dict) else {}
    states = content.get("model", content)
    tensors = {name: value for name, value in states.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(
            f"MODEL.WEIGHTS {path!r} holds no tensors; expected backbone.pkl or a detector's .pth"
        )
    record = content.get("moco_det", {})
    if "provenance" not in record:  # which backbone.pth has, and a checkpoint of pre-training has not
        return tensors, None
    return tensors, Preprocessing.from_dict(record["preprocessing"])


def _from_caffe2(location: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of a Caffe2 file (the MSRA weights) under the names by which detectron2 loads them."""
    tensors, _ = convert_c2_detectron_names(tensors)
    if any(name.startswith(_DETECTOR) for name in tensors):
        raise ValueError(
            f"MODEL.WEIGHTS {location!r} is a whole detector of Caffe2; expected a backbone, such as "
            "--init supervised_msra names"
        )
    # Caffe's first convolution has a bias, for which no ResNet of detectron2 has a place.
    if tensors.pop("stem.conv1.bias", None) is not None:
        logger.info("conv1_b of the Caffe2 file is not used, as detectron2 does not use it")
    return tensors


def check_preprocessing(cfg: CfgNode, weights: Weights, init: Init | None) -> None:
    """Compare the preprocessing that the weights want with the config's.

    What a file does not record, its init overlay says; a full detector has its own, which no overlay knows.

    Raises:
        ValueError: lists each key that differs, what was found and expected, and the mend.
    """
    if weights.is_detector:
        logger.info("MODEL.WEIGHTS is a full detector: its preprocessing is not recorded and not checked")
        return
    if weights.preprocessing is None and init is None:
        logger.warning("MODEL.WEIGHTS records no preprocessing and there is no --init: it cannot be checked")
        return
    expected = weights.preprocessing or init.preprocessing
    found = preprocessing_of(cfg)
    wrong = [
        field for field in PREPROCESSING_KEYS if not _same(getattr(found, field), getattr(expected, field))
    ]
    if wrong:
        lines = (
            f"{PREPROCESSING_KEYS[field]} is {getattr(found, field)}, expected {getattr(expected, field)}"
            for field in wrong
        )
        raise ValueError(
            f"MODEL.WEIGHTS {weights.location!r} wants its input otherwise than the config gives it: "
            f"{'; '.join(lines)}. Mend: {_mend(weights.location, expected, init)}"
        )
    if weights.preprocessing is None:
        logger.info(
            f"MODEL.WEIGHTS records no preprocessing: that of --init {init.name} is taken for its own"
        )


def _same(a: object, b: object) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(math.isclose(x, y, abs_tol=1e-3) for x, y in zip(a, b, strict=True))
    return a == b


def _mend(location: str, expected: Preprocessing, init: Init | None) -> str:
    if init is not None and init.preprocessing == expected:
        return f"leave the KEY VALUE pairs that change --init {init.name} out"
    fitting = [i.name for i in map(read_init, list_inits()) if i.weights and i.preprocessing == expected]
    if fitting:
        return f"use --init {fitting[0]}"
    beside = os.path.splitext(location)[0] + ".yaml"
    with contextlib.suppress(ValueError):  # there is none, or it is another kind of file
        if read_init(beside).preprocessing == expected:
            return f"use --init {beside}, the weights' own"
    return (
        "convert again, which puts an overlay for --init beside the weights, or write these values into an "
        "overlay of your own (--init FILE.yaml)"
    )


def check_backbone(cfg: CfgNode, model: nn.Module, weights: Weights) -> None:
    """Compare each backbone tensor of a loaded detector with the file's, running statistics included.

    Raises:
        ValueError: a tensor of the model is not in the file or differs from it, or the file has tensors of
            the model's stages that the model has no place for; names them.
    """
    _refuse_training_fused_norms(cfg, weights)
    model_tensors = {
        match[1]: value for name, value in model.state_dict().items() if (match := _IN_MODEL.fullmatch(name))
    }
    if not model_tensors:
        raise ValueError(
            f"the model ({cfg.MODEL.BACKBONE.NAME}) has no ResNet that MODEL.WEIGHTS could start"
        )
    fused = not any(name.endswith(".running_mean") for name in weights.tensors)
    if fused and cfg.MODEL.RESNETS.NORM == "FrozenBN":
        # detectron2 fills an identity in: the file's norms have their statistics multiplied into the scale.
        model_tensors = {n: v for n, v in model_tensors.items() if ".norm.running_" not in n}
    missing, different, unused = _compare(model_tensors, weights.tensors)
    stages = {name.split(".")[0] for name in model_tensors}
    extra = [n for n in unused if _IN_FILE.fullmatch(n) and n.split(".")[0] in stages]
    problems = {
        "not in the file": missing,
        "other in the file": different,
        "without a place in the model": extra,
    }
    if any(problems.values()):
        found = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names)
        mend = f"check MODEL.RESNETS.DEPTH ({cfg.MODEL.RESNETS.DEPTH}) and the architecture, or convert again"
        if fused and missing:
            mend = f"its norms are fused: MODEL.RESNETS.NORM must be FrozenBN, not {cfg.MODEL.RESNETS.NORM}"
        raise ValueError(
            f"the backbone is not that of MODEL.WEIGHTS {weights.location!r}. Tensors {found}. Mend: {mend}"
        )
    logger.info(f"All {len(model_tensors)} backbone tensors equal those of {weights.location}")
    if unused:
        logger.info(
            f"{len(unused)} tensors of the file have no place in this model: {', '.join(sorted(unused))}"
        )


def _refuse_training_fused_norms(cfg: CfgNode, weights: Weights) -> None:
    """convert gives a Caffe2 file without statistics those of an identity; batch norm cannot go on from them."""
    variances = [value for name, value in weights.tensors.items() if name.endswith(".norm.running_var")]
    fused = variances and all(torch.equal(value, torch.full_like(value, IDENTITY_VAR)) for value in variances)
    if fused and cfg.MODEL.RESNETS.NORM != "FrozenBN":
        raise ValueError(
            f"the norms of MODEL.WEIGHTS {weights.location!r} have their statistics multiplied into their scale; "
            f"MODEL.RESNETS.NORM must be FrozenBN, not {cfg.MODEL.RESNETS.NORM}"
        )


def check_detector(model: nn.Module, weights: Weights, *, complete: bool) -> None:
    """Account for each tensor of a full detector file.

    Args:
        complete: refuse a file that does not fill the model (evaluation); else only say what it left out.

    Raises:
        ValueError: the file does not fill the model and must, or no tensor of it does.
    """
    state = {n: v for n, v in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    missing, different, unused = _compare(state, weights.tensors)
    kept = len(state) - len(missing) - len(different)
    logger.info(f"{kept} of the model's {len(state)} tensors equal those of the detector {weights.location}")
    for what, names in (
        ("tensors of the model are not in the file", missing),
        ("tensors of the model are not the file's (another shape?)", different),
        ("tensors of the file have no place in this model", unused),
    ):
        if names:
            logger.warning(f"{len(names)} {what}: {', '.join(sorted(names))}")
    if (complete and kept < len(state)) or not kept:
        raise ValueError(
            f"MODEL.WEIGHTS {weights.location!r} fills {kept} of the model's {len(state)} tensors, not "
            f"{_some(missing + different)}; expected the checkpoint of a detector trained with this config"
        )


def _compare(
    model: dict[str, torch.Tensor], file: dict[str, torch.Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """Names of the model's tensors that the file lacks, of those that differ, of the file's not in the model."""
    missing = [name for name in model if name not in file]
    different = [
        n for n in model if n in file and not torch.equal(model[n].cpu(), file[n].to(model[n].dtype))
    ]
    unused = [name for name in file if name not in model and not name.endswith("num_batches_tracked")]
    return missing, different, unused


def _some(names: Iterable[str], count: int = 5) -> str:
    names = sorted(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
