"""``tools/train_net.py --dry-run``: what a run will be, before it starts. Nothing is written."""

import argparse
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from moco_det.engine.command import AddConfig
from moco_det.engine.launch import num_processes
from moco_det.engine.plan_text import PlanRow, changed_settings, count, show, show_start
from moco_det.finetune.classes import classes_rows
from moco_det.finetune.datasets import names_faulty_labels
from moco_det.finetune.inits import Init
from moco_det.finetune.loaded_weights import LoadedWeights
from moco_det.finetune.preflight import check_disk_space, check_run, used_datasets
from moco_det.finetune.trainer import training_records
from moco_det.utils.files import gib


def dry_run(
    cfg: CfgNode,
    args: argparse.Namespace,
    init: Init | None,
    add_configs: Sequence[AddConfig],
) -> None:
    """Check all that a run checks, and read the labels; print what the run will be.

    Raises:
        ValueError: it cannot start.
    """
    model, weights, changes = check_run(cfg, args, init)
    train = [] if args.eval_only else [training_row(cfg, training_records(cfg))]
    print(f"Dry run of {args.config_file}" + (f" from --init {init.name}" if init else ""))
    rows = [changed_settings(cfg, args.config_file, add_configs), *train, *map(test_row, cfg.DATASETS.TEST)]
    rows += [("classes", f"{key} {text}") for key, text in classes_rows(cfg, used_datasets(cfg, args)[0])]
    if model is None:
        rows.append(("weights", f"the newest checkpoint in {cfg.OUTPUT_DIR}, from which the run resumes"))
        rows += [("changed", change) for change in changes]
    else:
        size = sum(parameter.numel() for parameter in model.parameters())
        rows += [
            ("model", f"{cfg.MODEL.META_ARCHITECTURE}, {size / 1e6:.1f} million parameters"),
            weights_row(weights),
        ]
    if not args.eval_only:
        rows.append(schedule_row(cfg, args))
    if model is not None and not args.eval_only:
        number, needed, free = check_disk_space(cfg, model)
        checkpoints = f"{count(number, 'checkpoint')} take {gib(needed)} of {gib(free)} free"
        rows.append(("output", f"{cfg.OUTPUT_DIR}: {checkpoints}"))
    show(rows)
    show_start(("--dry-run",))


def training_row(cfg: CfgNode, records: Sequence[dict]) -> PlanRow:
    part = f", {cfg.DATASETS.LABEL_FRACTION:.0%} of the labels" if cfg.DATASETS.LABEL_FRACTION != 1 else ""
    return "train", f"{', '.join(cfg.DATASETS.TRAIN)}: {count(len(records), 'image')}{part}"


def test_row(name: str) -> PlanRow:
    with names_faulty_labels([name]):
        number = len(DatasetCatalog.get(name))
    return "test", f"{name}: {count(number, 'image')}, measured by {MetadataCatalog.get(name).evaluator_type}"


def weights_row(weights: LoadedWeights | None) -> PlanRow:
    if weights is None:
        return "weights", "none: random"
    kind = "a whole detector" if weights.is_detector else "a backbone; all of its tensors are in the model"
    return "weights", f"{weights.location}: {kind}; sha256 {weights.sha256[:12]}"


def schedule_row(cfg: CfgNode, args: argparse.Namespace) -> PlanRow:
    solver = cfg.SOLVER
    steps = f", times {solver.GAMMA:g} at {', '.join(map(str, solver.STEPS))}" if solver.STEPS else ""
    return (
        "the run",
        f"{count(solver.MAX_ITER, 'iteration')} of {count(solver.IMS_PER_BATCH, 'image')} on "
        f"{count(num_processes(args), 'process', 'processes')}; learning rate {solver.BASE_LR:g}{steps} "
        f"({solver.LR_SCHEDULER_NAME}); evaluated "
        + (f"every {count(cfg.TEST.EVAL_PERIOD, 'iteration')} and " if cfg.TEST.EVAL_PERIOD else "")
        + "at the end",
    )
