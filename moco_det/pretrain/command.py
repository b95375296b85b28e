"""``tools/pretrain_moco.py``: from the command line to a finished run and its record."""

import argparse
import json
import logging
import os

from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from moco_det.data.datasets.own import add_dataset_options
from moco_det.engine.launch import run_in_processes, settle_processes
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.record import write_run_record
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.engine.run_logs import held_back_logs
from moco_det.engine.threads import settle_threads
from moco_det.model_zoo import recipe_name
from moco_det.modeling.precision import precision_name
from moco_det.pretrain.plan import plan
from moco_det.pretrain.preflight import check_run, unlabeled_images
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.utils.disk_space import check_disk_space
from moco_det.utils.errors import user_errors

logger = logging.getLogger(__name__)


def argument_parser() -> argparse.ArgumentParser:
    """detectron2's arguments and those of pre-training."""
    parser = default_argument_parser(
        epilog="Example: tools/pretrain_moco.py --config-file configs/Pretrain/moco_v2_R_50_200ep.yaml "
        "--images DIR --num-gpus 8 OUTPUT_DIR output/pretrain"
    )
    parser.description = "Pre-train a ResNet on unlabeled images, with MoCo or another method."
    parser.add_argument(
        "--images",
        default="",
        help="a folder of images (any depth) or of tar shards, a pattern of shards such as "
        "train-{000000..000147}.tar, or a text file of paths",
    )
    parser.add_argument(
        "--exclude",
        default="",
        metavar="FILE",
        help="a text file of paths that are left out (tools/check_datasets.py --leaks-list writes one)",
    )
    parser.add_argument(
        "--overlay",
        default="",
        metavar="FILE",
        help="a YAML file merged over the recipe, below the KEY VALUE pairs (tools/compute_stats.py writes one)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print what the run will be, after a short trial, with advice; nothing is written",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="the plan without its trial: check everything, print what the run will be, write nothing",
    )
    add_dataset_options(parser)
    parser.set_defaults(num_gpus=None)
    return parser


def run(args: argparse.Namespace, add_configs=()) -> None:
    """Pre-train as the command line says: on ``--num-gpus`` GPUs of each machine (0: the CPU), or under torchrun.

    Raises:
        ValueError: the settings cannot run; OSError: the output cannot be written.
    """
    if args.plan or args.dry_run:
        plan.run(args, add_configs)
        return
    settle_processes(args)
    run_in_processes(train_process, args, args, add_configs)


def train_process(args: argparse.Namespace, add_configs=()) -> None:
    """One process of a run."""
    with held_back_logs():  # nothing is written until all is checked
        cfg = build_config(args, add_configs)
        settle_threads(cfg)
        paths = unlabeled_images(cfg)
        check_run(cfg, len(paths), comm.get_world_size(), args.resume)
        trainer = PretrainTrainer(cfg, paths)
        if args.resume:
            trainer.resume()
        check_disk_space(cfg, trainer.method, trainer.start_iter // trainer.steps_per_epoch)
        prepare_run_folder(cfg, args.resume)
    if trainer.start_iter < trainer.max_iter:
        trainer.run()
    elif os.path.exists(os.path.join(cfg.OUTPUT_DIR, RECORD)):
        logger.info(f"{cfg.OUTPUT_DIR} holds the finished run of {trainer.max_iter} steps; nothing to do")
        return
    if comm.is_main_process():
        write_run_record(
            cfg.OUTPUT_DIR,
            stage="pretrain",
            cfg=cfg,
            metrics=final_metrics(os.path.join(cfg.OUTPUT_DIR, "metrics.json")),
            seconds=trainer.history.seconds,
            extra={
                "task": recipe_name(args.config_file),
                "iterations": trainer.max_iter,
                "images": len(trainer.paths),
                "views": 2 * trainer.max_iter * cfg.SOLVER.IMS_PER_BATCH,
                "precision": precision_name(trainer.method.precision),
                "weights": trainer.history.weights,
                "weights_sha256": trainer.history.weights_sha256,
            },
        )


def final_metrics(path: str) -> dict[str, float]:
    """The last value of each number in a metrics.json, and of kNN accuracy the first as ``knn_untrained``."""
    latest = {}
    with open(path) as lines:
        for line in map(json.loads, lines):
            if "knn_accuracy" in line and "knn_accuracy" not in latest:
                latest["knn_untrained"] = line["knn_accuracy"]
            latest.update(line)
    return latest


@user_errors
def main(argv: list[str] | None = None) -> None:
    """``tools/pretrain_moco.py``."""
    run(argument_parser().parse_args(argv))
