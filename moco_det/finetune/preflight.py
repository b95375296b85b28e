"""What must hold before fine-tuning starts: the same checks for a run and for its dry run.

Nothing here writes, but for what the look at the data keeps (:mod:`moco_det.finetune.look`).
"""

import argparse
import difflib
import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from torch import nn

from moco_det.data.image_format import ImageFormat
from moco_det.engine.launch import num_machines
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.run_folder import check_output, check_writable
from moco_det.finetune.coco_evaluator import check_coco_evaluator
from moco_det.finetune.datasets import check_datasets
from moco_det.finetune.evaluators import check_evaluator
from moco_det.finetune.hooks import same_generators
from moco_det.finetune.inits import Init, check_init
from moco_det.finetune.loaded_weights import LoadedWeights, read_weights
from moco_det.finetune.look import look_before_run, quiet
from moco_det.finetune.weights_check import check_preprocessing, load_checked
from moco_det.utils.disk_space import check_space, state_bytes
from moco_det.utils.files import gib

# In OUTPUT_DIR, the file in which detectron2 names the checkpoint to resume from.
CHECKPOINT = "last_checkpoint"


def resumes(cfg: CfgNode, args: argparse.Namespace) -> bool:
    """Whether a run resumes from a checkpoint."""
    return args.resume and os.path.isfile(os.path.join(cfg.OUTPUT_DIR, CHECKPOINT))


def holds_run(cfg: CfgNode) -> bool:
    """Whether OUTPUT_DIR holds a run that has begun or finished."""
    return any(os.path.exists(os.path.join(cfg.OUTPUT_DIR, name)) for name in (CHECKPOINT, RECORD))


def used_datasets(cfg: CfgNode, args: argparse.Namespace) -> tuple[str, ...]:
    """The names of the data sets that a run opens."""
    return tuple(cfg.DATASETS.TEST if args.eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))


def refuse_other_stages(cfg: CfgNode, config_file: str) -> None:
    """Refuse a recipe of another stage, and a model that nobody registered.

    Raises:
        ValueError: names the tool that runs the recipe, or the closest match.
    """
    for architecture, stage, tool in (
        ("MoCo", "pre-training", "pretrain_moco"),
        ("Classifier", "classification", "train_classifier"),
    ):
        if cfg.MODEL.META_ARCHITECTURE == architecture:
            raise ValueError(f"{config_file!r} is a recipe of {stage}; run it with tools/{tool}.py")
    name, known = cfg.MODEL.META_ARCHITECTURE, [name for name, _ in META_ARCH_REGISTRY]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)
        raise ValueError(f"MODEL.META_ARCHITECTURE is {name!r}; closest match: {near[0]!r}")


def check_run(
    cfg: CfgNode, args: argparse.Namespace, init: Init | None
) -> tuple[nn.Module | None, LoadedWeights | None, list[str]]:
    """Refuse, before any process starts, what would fail later or train on something else.

    Returns:
        the model on the CPU with its weights, and what MODEL.WEIGHTS names; None for the model where a run resumes
        from its checkpoint, and for the weights where none are read. Then what a resume changes, see
        :func:`moco_det.engine.run_folder.check_continuation`.

    Raises:
        ValueError: a setting that cannot work; says what was found, what was expected, and the fix.
    """
    check_coco_evaluator(cfg)
    if ImageFormat.from_config(cfg).channels > 3 and cfg.VIS_PERIOD:
        raise ValueError(
            f"VIS_PERIOD is {cfg.VIS_PERIOD} with INPUT.CHANNELS {cfg.INPUT.CHANNELS}; expected 0, since "
            "detectron2 draws training images of three channels alone"
        )
    part, use = ("TEST", "evaluate") if args.eval_only else ("TRAIN", "train")
    if not cfg.DATASETS[part]:
        near = [name for name in DatasetCatalog.list() if name.endswith(part.lower())][:3]
        raise ValueError(f"DATASETS.{part} is empty; give data sets to {use} on, such as {near}")
    check_datasets(cfg, used_datasets(cfg, args))
    for name in cfg.DATASETS.TEST:
        check_evaluator(name, num_machines(args))
    changes = []
    if args.eval_only:
        check_writable(cfg.OUTPUT_DIR)
    else:
        changes = check_output(cfg, args.resume, holds_run(cfg))
    model, weights = (None, None) if resumes(cfg, args) else _check_weights(cfg, args, init)
    if int(os.environ.get("RANK", 0)) == 0:  # of torchrun's processes the first looks for all
        for name, finding in look_before_run(cfg, args.eval_only):
            print(f"warning: {name}: {finding}", flush=True)
    return model, weights, changes


def _check_weights(
    cfg: CfgNode, args: argparse.Namespace, init: Init | None
) -> tuple[nn.Module, LoadedWeights | None]:
    if not args.eval_only:
        check_init(cfg, init)
    elif not cfg.MODEL.WEIGHTS:
        raise ValueError("--eval-only has no MODEL.WEIGHTS; give MODEL.WEIGHTS path/to/model_final.pth")
    weights = _weights_of(cfg, init)
    if weights is not None:
        check_preprocessing(cfg, weights, init)
    model = _loaded_model(cfg, weights, args.eval_only)
    if not args.eval_only:
        check_disk_space(cfg, model)
    return model, weights


def _weights_of(cfg: CfgNode, init: Init | None) -> LoadedWeights | None:
    if init is not None and init.loaded is not None and init.loaded.location == cfg.MODEL.WEIGHTS:
        return init.loaded
    return read_weights(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else None


def _loaded_model(cfg: CfgNode, weights: LoadedWeights | None, complete: bool) -> nn.Module:
    """The model on the CPU with the weights; ``complete``: a whole detector is expected.

    Raises:
        ValueError: it cannot be built from these settings, or the weights do not fit it.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    with same_generators(), quiet():
        try:
            model = build_model(cfg)
            build_lr_scheduler(cfg, build_optimizer(cfg, model))
        except Exception as error:  # detectron2 asserts, and looks names up
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"no model and optimizer can be built from these settings ({reason})") from error
        if weights is not None:
            load_checked(cfg, model, weights, complete=complete)
    return model


def check_disk_space(cfg: CfgNode, model: nn.Module) -> tuple[int, int, int]:
    """Refuse a run whose checkpoints, all of which stay, do not fit the disk.

    Returns:
        how many there will be, the bytes that they take, and the bytes that are free.

    Raises:
        ValueError: there is too little space.
    """
    size = state_bytes(model, momentum=cfg.SOLVER.MOMENTUM > 0)
    number = cfg.SOLVER.MAX_ITER // cfg.SOLVER.CHECKPOINT_PERIOD + 1
    free = check_space(
        "OUTPUT_DIR",
        cfg.OUTPUT_DIR,
        number * size,
        f"{number} checkpoints of {gib(size)}",
        f"raise SOLVER.CHECKPOINT_PERIOD ({cfg.SOLVER.CHECKPOINT_PERIOD})",
    )
    return number, number * size, free
