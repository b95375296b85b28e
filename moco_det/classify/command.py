"""``tools/train_classifier.py``: from the command line to a finished run and its record."""

import argparse
import json
import logging
import os

from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from moco_det.classify.settings import build_config
from moco_det.classify.trainer import ClassifierTrainer
from moco_det.cli import run_in_processes, settle_processes, user_errors
from moco_det.model_zoo import recipe_name
from moco_det.run_folder import prepare_run_folder
from moco_det.run_record import FILE_NAME as RECORD
from moco_det.run_record import write_run_record

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
    run_in_processes(train_process, args, args, add_configs)


def train_process(args: argparse.Namespace, add_configs=()) -> None:
    """One process of a run."""
    cfg, start = build_config(args, add_configs)
    prepare_run_folder(cfg, args.resume)
    trainer = ClassifierTrainer(cfg, start)
    if args.resume:
        trainer.resume()
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
                "weights": trainer.history.weights,
                "weights_sha256": trainer.history.weights_sha256,
            },
        )


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
