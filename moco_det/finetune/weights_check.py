"""Refuses a run whose weights are not what its config takes them for.

Before the model is built, the preprocessing that the file records is compared with the config. After
detectron2 has loaded the file (by name heuristics, forgiving whatever does not match), each backbone tensor of
the model is compared with the file's. Other files are said to be other files:

* a full detector (a run's ``model_final.pth``, a model zoo file): there is no init to check; every tensor is
  accounted for in the log, and ``--eval-only`` refuses a file that does not fill the whole model;
* ``--resume`` with a checkpoint in OUTPUT_DIR: MODEL.WEIGHTS is not read, so it is not checked.
"""

import contextlib
import logging
import math
import os
import re

import torch
from detectron2.config import CfgNode
from torch import nn

from moco_det.config.overlays import CHANNEL_KEYS, PREPROCESSING_KEYS
from moco_det.finetune.inits import Init, preprocessing_of, read_init
from moco_det.finetune.loaded_weights import IN_FILE, LoadedWeights, some
from moco_det.finetune.safe_checkpointer import SafeCheckpointer
from moco_det.model_zoo import list_inits
from moco_det.weights.backbone_file import Preprocessing
from moco_det.weights.sources.layouts import IDENTITY_VAR

logger = logging.getLogger(__name__)

# A backbone tensor in a detector (C4 has res5 in its head; the extra norm is no part of it).
_IN_MODEL = re.compile(rf"(?:backbone\.(?:bottom_up\.)?|roi_heads\.)({IN_FILE.pattern})")


def check_preprocessing(cfg: CfgNode, weights: LoadedWeights, init: Init | None) -> None:
    """Compare the preprocessing that the weights want with the config's.

    What a file does not record, its init overlay says; a full detector has its own, which no overlay knows.

    Raises:
        ValueError: lists each key that differs, what was found and expected, and the fix.
    """
    if weights.is_detector:
        logger.info("MODEL.WEIGHTS is a full detector: its preprocessing is not recorded and not checked")
        return
    if weights.preprocessing is None and init is None:
        logger.warning("MODEL.WEIGHTS records no preprocessing and there is no --init: it cannot be checked")
        return
    expected = weights.preprocessing or init.preprocessing
    found = preprocessing_of(cfg)
    keys = {**CHANNEL_KEYS, **PREPROCESSING_KEYS}
    wrong = [field for field in keys if not _same(getattr(found, field), getattr(expected, field))]
    if wrong:
        lines = (
            f"{keys[field]} is {getattr(found, field)}, expected {getattr(expected, field)}"
            for field in wrong
        )
        raise ValueError(
            f"MODEL.WEIGHTS {weights.location!r} wants its input otherwise than the config gives it: "
            f"{'; '.join(lines)}. Fix: {_fix(weights.location, expected, init)}"
        )
    if weights.preprocessing is None:
        logger.info(
            f"MODEL.WEIGHTS records no preprocessing: that of --init {init.name} is taken for its own"
        )


def _same(a: object, b: object) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(math.isclose(x, y, abs_tol=1e-3) for x, y in zip(a, b, strict=True))
    return a == b


def _fix(location: str, expected: Preprocessing, init: Init | None) -> str:
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


def load_checked(cfg: CfgNode, model: nn.Module, weights: LoadedWeights, *, complete: bool = False) -> None:
    """Load weights into a model, and account for each tensor.

    Args:
        complete: a whole detector is expected, which fills the model.

    Raises:
        ValueError: as :func:`check_loaded_backbone` or :func:`check_loaded_detector`.
    """
    SafeCheckpointer(model, save_dir="").load_weights(weights)
    if complete or weights.is_detector:
        check_loaded_detector(model, weights, complete=complete)
    else:
        check_loaded_backbone(cfg, model, weights)


def check_loaded_backbone(cfg: CfgNode, model: nn.Module, weights: LoadedWeights) -> None:
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
    extra = [n for n in unused if IN_FILE.fullmatch(n) and n.split(".")[0] in stages]
    problems = {
        "not in the file": missing,
        "other in the file": different,
        "without a place in the model": extra,
    }
    if any(problems.values()):
        found = "; ".join(f"{len(names)} {what}: {some(names)}" for what, names in problems.items() if names)
        depth = cfg.MODEL.RESNETS.DEPTH
        fix = f"check MODEL.RESNETS.DEPTH ({depth}) and the architecture, or convert again"
        if weights.arch and weights.arch != f"resnet{depth}":
            fix = (
                f"the file holds a {weights.arch}, MODEL.RESNETS.DEPTH is {depth}: take a recipe of that network, "
                f"or pre-train this one (MODEL.ENCODER.ARCH resnet{depth})"
            )
        if fused and missing:
            fix = f"its norms are fused: MODEL.RESNETS.NORM must be FrozenBN, not {cfg.MODEL.RESNETS.NORM}"
        raise ValueError(
            f"the backbone is not that of MODEL.WEIGHTS {weights.location!r}. Tensors {found}. Fix: {fix}"
        )
    logger.info(f"All {len(model_tensors)} backbone tensors equal those of {weights.location}")
    if unused:
        logger.info(
            f"{len(unused)} tensors of the file have no place in this model: {', '.join(sorted(unused))}"
        )


def _refuse_training_fused_norms(cfg: CfgNode, weights: LoadedWeights) -> None:
    """convert gives a Caffe2 file without statistics those of an identity; batch norm cannot start from them."""
    variances = [value for name, value in weights.tensors.items() if name.endswith(".norm.running_var")]
    fused = variances and all(torch.equal(value, torch.full_like(value, IDENTITY_VAR)) for value in variances)
    if fused and cfg.MODEL.RESNETS.NORM != "FrozenBN":
        raise ValueError(
            f"the norms of MODEL.WEIGHTS {weights.location!r} have their statistics multiplied into their scale; "
            f"MODEL.RESNETS.NORM must be FrozenBN, not {cfg.MODEL.RESNETS.NORM}"
        )


def check_loaded_detector(model: nn.Module, weights: LoadedWeights, *, complete: bool) -> None:
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
            f"{some(missing + different)}; expected the checkpoint of a detector trained with this config"
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
