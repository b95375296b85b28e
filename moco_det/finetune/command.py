"""``tools/train_net.py``: from the command line to a fine-tuned detector and the record of its run."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from moco_det.config.key import FINETUNE
from moco_det.config.rules import check_values, refuse_keys
from moco_det.data.datasets.own import register_datasets, settle_datasets
from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.data.unreadable import begin_list
from moco_det.engine.agreement import check_agreement, settings_and_code
from moco_det.engine.command import AddConfig, read_config
from moco_det.engine.launch import (
    check_batch,
    choose_gpus,
    num_processes,
    processes_of_torchrun,
    run_in_processes,
)
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.record import write_run_record
from moco_det.engine.run_folder import choose_seed, log_changes, log_to
from moco_det.engine.threads import choose_threads
from moco_det.finetune.classes import classes_rows, complete_metadata, count_classes
from moco_det.finetune.dry_run import dry_run
from moco_det.finetune.inits import Init, read_init
from moco_det.finetune.loaded_weights import LoadedWeights, read_weights
from moco_det.finetune.preflight import check_run, holds_run, refuse_other_stages, resumes, used_datasets
from moco_det.finetune.safe_checkpointer import SafeCheckpointer
from moco_det.finetune.samples import write_sample_detections
from moco_det.finetune.trainer import Trainer
from moco_det.finetune.weights_check import check_preprocessing, load_checked
from moco_det.model_zoo import get_config_file, recipe_name
from moco_det.model_zoo.tasks import task_name
from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write
from moco_det_cli.parsers.stages import train_parser as make_parser

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace, add_configs: Sequence[AddConfig] = ()) -> None:
    """Train (or evaluate) as ``args`` of :func:`make_parser` say; everything is checked before it starts.

    Args:
        add_configs: functions that add a project's keys to the config.

    Raises:
        ValueError: a setting that cannot work; says what was found, what was expected, and the fix.
    """
    register_toy_datasets()  # again: a toy world may have been made since the import
    args = argparse.Namespace(**vars(args))
    init = read_init(args.init) if args.init else None
    overlays = (init.overlay,) if init else ()
    cfg, set_keys = read_config(args, add_configs, "toy/faster_rcnn_R_18_FPN", overlays)
    args.config_file = get_config_file(args.config_file)
    refuse_other_stages(cfg, args.config_file)
    check_values(cfg, FINETUNE)
    refuse_keys(cfg, set_keys, args.opts[0::2], FINETUNE)
    if init and "MODEL.WEIGHTS" not in args.opts[0::2]:
        cfg.MODEL.WEIGHTS = init.weights
    settle_datasets(cfg, args)
    count_classes(cfg, used_datasets(cfg, args), args.config_file, args.opts)
    _choose_device(cfg, args)
    _choose_seed(cfg, args)
    cfg.freeze()
    if args.dry_run:
        dry_run(cfg, args, init, add_configs)
        return
    _, weights, changes = check_run(cfg, args, init)
    run_in_processes(_work, args, cfg, args, weights, changes, init)


def _choose_device(cfg: CfgNode, args: argparse.Namespace) -> None:
    choose_gpus(args)
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    processes = num_processes(args)
    if args.num_gpus == 0 and processes > 1:
        raise ValueError(
            f"{processes} processes were asked for on CPUs; detectron2's trainer needs a GPU for each "
            "where there are several: take one process, or GPUs"
        )
    check_batch(cfg.SOLVER.IMS_PER_BATCH, processes)


def _choose_seed(cfg: CfgNode, args: argparse.Namespace) -> None:
    """A run always has a seed, see :func:`choose_seed`; here the processes do not know of each other yet."""
    apart = args.num_machines > 1 or processes_of_torchrun() > 1
    if cfg.SEED < 0 and apart and not resumes(cfg, args):
        raise ValueError("SEED is -1; processes started apart need the same: give SEED 1 (or any other)")
    choose_seed(cfg, resumes(cfg, args))


def _work(
    cfg: CfgNode,
    args: argparse.Namespace,
    weights: LoadedWeights | None,
    changes: Sequence[str],
    init: Init | None,
) -> None:
    """What each process does."""
    check_agreement(settings_and_code(cfg))
    register_datasets(cfg)
    log_to(cfg.OUTPUT_DIR, "moco_det")
    log_changes(changes)
    _set_up(cfg, args)
    if weights is not None:
        check_preprocessing(cfg, weights, init)  # again, for the log
    for name in used_datasets(cfg, args):
        complete_metadata(name)
    for key, text in classes_rows(cfg, used_datasets(cfg, args)[0]):
        logger.info(f"{key} is {text}")
    if cfg.MODEL.DEVICE == "cpu":
        logger.info("On the CPU, as --num-gpus 0 asks or because there is no GPU")
        choose_threads(cfg)
    if args.eval_only:
        _evaluate(cfg, weights)
        return
    if comm.is_main_process():
        begin_list(cfg.OUTPUT_DIR, args.resume)
    trainer = Trainer(cfg, weights)
    trainer.resume_or_load(resume=args.resume)
    if trainer.start_iter >= trainer.max_iter:
        finished = f"{cfg.OUTPUT_DIR} holds the finished run of {trainer.max_iter} iterations"
        if os.path.exists(os.path.join(cfg.OUTPUT_DIR, RECORD)):
            logger.info(f"{finished}; nothing to do")
            return
        logger.info(f"{finished}, but no {RECORD}; evaluating for it, nothing to train")
    trainer.train()  # of a finished run, the evaluation alone
    if comm.is_main_process():
        _record(trainer, args, init)


def _set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """detectron2's set-up; an evaluation in the folder of a run leaves that run's config.yaml as it is."""
    path = Path(cfg.OUTPUT_DIR, "config.yaml")
    keep = args.eval_only and comm.is_main_process() and holds_run(cfg) and path.exists()
    of_run = path.read_bytes() if keep else b""
    default_setup(cfg, args)
    if of_run:
        with atomic_write(path) as temporary:
            temporary.write_bytes(of_run)


def _record(trainer: Trainer, args: argparse.Namespace, init: Init | None) -> None:
    cfg = trainer.cfg
    if cfg.DATASETS.TEST and cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        write_sample_detections(cfg, trainer.checkpointer.model)
    extra = {
        "init": init.name if init else "none",
        "task": task_name(recipe_name(args.config_file), cfg.DATASETS.LABEL_FRACTION),
        "iterations": trainer.max_iter,
        # An address, or a file's name: its path says something of this machine only, its sha256 says which.
        "weights": cfg.MODEL.WEIGHTS if "://" in cfg.MODEL.WEIGHTS else os.path.basename(cfg.MODEL.WEIGHTS),
        "weights_sha256": trainer.run_state.weights_sha256,
    }
    metrics, seconds = trainer.final_metrics(), trainer.run_state.seconds
    write_run_record(cfg.OUTPUT_DIR, stage="finetune", cfg=cfg, metrics=metrics, seconds=seconds, extra=extra)


def _evaluate(cfg: CfgNode, weights: LoadedWeights | None) -> None:
    """Measure a detector: that of the weights, or of the newest checkpoint in OUTPUT_DIR where there are none."""
    model = Trainer.build_model(cfg)
    weights = weights or read_weights(SafeCheckpointer(model, cfg.OUTPUT_DIR).get_checkpoint_file())
    load_checked(cfg, model, weights, complete=True)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    run(make_parser().parse_args(argv))
