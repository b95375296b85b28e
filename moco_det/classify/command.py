"""``tools/train_classifier.py``: from the command line to a finished run and its record."""

import argparse
import json
import logging
import os

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from moco_det.classify.settings import build_config
from moco_det.classify.trainer import ClassifierTrainer
from moco_det.engine.launch import num_processes, processes_of_torchrun, run_in_processes, settle_processes
from moco_det.engine.plan_text import changed_settings, count, show, show_start
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.record import write_run_record
from moco_det.engine.run_folder import check_output, prepare_run_folder
from moco_det.engine.run_logs import held_back_logs
from moco_det.engine.threads import settle_threads
from moco_det.model_zoo import get_config_file, recipe_name
from moco_det.modeling.precision import precision_name
from moco_det.utils.disk_space import check_disk_space
from moco_det.utils.errors import user_errors
from moco_det.utils.files import gib
from moco_det.weights.loading import Start

logger = logging.getLogger(__name__)


def argument_parser() -> argparse.ArgumentParser:
    """detectron2's arguments and those of classification."""
    parser = default_argument_parser(
        epilog="Example: tools/train_classifier.py --config-file configs/ImageNet-Classification/"
        "linear_R_50_100ep.yaml --weights output/backbone.pkl --images DIR --num-gpus 8 OUTPUT_DIR output/linear"
    )
    parser.description = "Judge features by a linear classifier and kNN, or train a whole network."
    parser.add_argument(
        "--images", default="", help="a folder with train/<class>/ and val/<class>/ (or test/<class>/)"
    )
    parser.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="what the encoder starts from: a checkpoint of pre-training, backbone.pkl, or any other file that "
        "tools/convert_to_d2.py reads; without it, random weights",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print what the run will be, write nothing",
    )
    parser.set_defaults(num_gpus=None)
    return parser


def run(args: argparse.Namespace, add_configs=()) -> None:
    """Train as the command line says: on ``--num-gpus`` GPUs of each machine (0: the CPU), or under torchrun.

    Raises:
        ValueError: the settings cannot run; OSError: the output cannot be written.
    """
    if args.eval_only:
        raise ValueError("--eval-only does not apply here: accuracies are measured while training")
    settle_processes(args)
    if args.dry_run:
        dry_run(args, add_configs)
        return
    run_in_processes(train_process, args, args, add_configs)


def train_process(args: argparse.Namespace, add_configs=()) -> None:
    """One process of a run."""
    with held_back_logs():  # nothing is written until all is checked
        cfg, start, trainer = checked_trainer(args, add_configs)
        prepare_run_folder(cfg, args.resume)
    if trainer.start_iter < trainer.max_iter:
        trainer.run()
    elif os.path.exists(os.path.join(cfg.OUTPUT_DIR, RECORD)):
        logger.info(f"{cfg.OUTPUT_DIR} holds the finished run of {trainer.max_iter} steps; nothing to do")
        return
    if cfg.CLASSIFY.FREEZE:
        trainer.check_frozen()
    if comm.is_main_process():
        write_run_record(
            cfg.OUTPUT_DIR,
            stage="classify",
            cfg=cfg,
            metrics=final_metrics(os.path.join(cfg.OUTPUT_DIR, "metrics.json")),
            seconds=trainer.history.seconds,
            extra={
                "task": recipe_name(args.config_file),
                "init": start.source if start else "random",
                "iterations": trainer.max_iter,
                "images": len(trainer.train_set),
                "test_images": len(trainer.test_set),
                "classes": len(trainer.train_set.classes),
                "precision": precision_name(trainer.classifier.precision),
                "weights": trainer.history.weights,
                "weights_sha256": trainer.history.weights_sha256,
            },
        )


def checked_trainer(args: argparse.Namespace, add_configs) -> tuple[CfgNode, Start | None, ClassifierTrainer]:
    """Config, start and trainer of a run that can start, or go on. Nothing is written.

    Raises:
        ValueError: it cannot.
    """
    cfg, start = build_config(args, add_configs)
    check_output(cfg, args.resume)
    settle_threads(cfg)
    trainer = ClassifierTrainer(cfg, start)
    if args.resume:
        trainer.resume()
    check_disk_space(cfg, trainer.classifier.trained, trainer.start_iter // trainer.steps_per_epoch)
    return cfg, start, trainer


def dry_run(args: argparse.Namespace, add_configs) -> None:
    """Check all that a run checks, in one process, and print what it will be."""
    if processes_of_torchrun():
        raise ValueError("--dry-run runs in one process: start it without torchrun")
    cfg, start, trainer = checked_trainer(args, add_configs)
    done, model, solver = trainer.start_iter, trainer.classifier.trained, cfg.SOLVER
    needed, free = check_disk_space(cfg, model, done // trainer.steps_per_epoch)
    processes = count(num_processes(args), "process", "processes")
    what = f"a linear classifier on frozen {cfg.CLASSIFY.ARCH}" if cfg.CLASSIFY.FREEZE else cfg.CLASSIFY.ARCH
    print(f"Dry run of {args.config_file}")
    show(
        [
            changed_settings(cfg, get_config_file(args.config_file), add_configs),
            (
                "images",
                f"{len(trainer.train_set):,} of {count(len(trainer.train_set.classes), 'class', 'classes')}"
                f" in {trainer.train_set.root}, measured on {len(trainer.test_set):,} of {trainer.test_set.root}",
            ),
            ("trained", what),
            (
                "weights",
                f"{start.path}: {start.source}, sha256 {start.sha256[:12]}"
                if start
                else "none, the encoder is random",
            ),
            (
                "the run",
                f"{count(solver.EPOCHS, 'epoch')} of {count(trainer.steps_per_epoch, 'step')} of "
                f"{solver.IMS_PER_BATCH} images on {processes}; learning rate "
                f"{solver.BASE_LR:g}, {solver.LR_SCHEDULER_NAME}"
                + (f"; {done:,} steps are done" if done else ""),
            ),
            ("output", f"{cfg.OUTPUT_DIR}: checkpoints take {gib(needed)} of {gib(free)} free"),
        ]
    )
    show_start(("--dry-run",))


def final_metrics(path: str) -> dict[str, float]:
    """The last value of each number in a metrics.json."""
    latest = {}
    with open(path) as lines:
        for line in map(json.loads, lines):
            latest.update(line)
    return latest


@user_errors
def main(argv: list[str] | None = None) -> None:
    """``tools/train_classifier.py``."""
    run(argument_parser().parse_args(argv))
