"""``tools/pretrain_moco.py``: from the command line to a finished run and its record."""

import argparse

from detectron2.utils import comm

from moco_det.engine.launch import choose_gpus, run_in_processes
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.engine.run_logs import held_back_logs
from moco_det.engine.threads import choose_threads
from moco_det.model_zoo import recipe_name
from moco_det.pretrain.plan import plan
from moco_det.pretrain.preflight import check_run, unlabeled_images
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.utils.errors import user_errors
from moco_det_cli.parsers.stages import pretrain_parser as argument_parser


def run(args: argparse.Namespace, add_configs=()) -> None:
    """Pre-train as the command line says: on ``--num-gpus`` GPUs of each machine (0: the CPU), or under torchrun.

    Raises:
        ValueError: the settings cannot run; OSError: the output cannot be written.
    """
    if args.eval_only:
        raise ValueError("--eval-only does not apply here: TEST.KNN.IMAGES evaluates while training")
    if args.plan or args.dry_run:
        plan.run(args, add_configs)
        return
    choose_gpus(args)
    run_in_processes(train_process, args, args, add_configs)


def train_process(args: argparse.Namespace, add_configs=()) -> None:
    """One process of a run."""
    with held_back_logs():  # nothing is written until all is checked
        cfg = build_config(args, add_configs)
        choose_threads(cfg)
        paths = unlabeled_images(cfg)
        check_run(cfg, len(paths), comm.get_world_size(), args.resume)
        trainer = PretrainTrainer(cfg, paths)
        if args.resume:
            trainer.resume()
        trainer.check_disk_space()
        prepare_run_folder(cfg, args.resume)
    trainer.run_to_record(cfg, recipe_name(args.config_file))


@user_errors
def main(argv: list[str] | None = None) -> None:
    """``tools/pretrain_moco.py``."""
    run(argument_parser().parse_args(argv))
