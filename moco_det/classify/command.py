"""``tools/train_classifier.py``: from the command line to a finished run and its record."""

import argparse

from detectron2.config import CfgNode

from moco_det.classify.settings import build_config
from moco_det.classify.trainer import ClassifierTrainer
from moco_det.engine.launch import choose_gpus, num_processes, processes_of_torchrun, run_in_processes
from moco_det.engine.plan_text import changed_settings, count, show, show_start
from moco_det.engine.run_folder import check_output, prepare_run_folder
from moco_det.engine.run_logs import held_back_logs
from moco_det.engine.threads import choose_threads
from moco_det.model_zoo import get_config_file, recipe_name
from moco_det.utils.errors import user_errors
from moco_det.utils.files import gib
from moco_det_cli.parsers.stages import classify_parser as argument_parser


def run(args: argparse.Namespace, add_configs=()) -> None:
    """Train as the command line says: on ``--num-gpus`` GPUs of each machine (0: the CPU), or under torchrun.

    Raises:
        ValueError: the settings cannot run; OSError: the output cannot be written.
    """
    if args.eval_only:
        raise ValueError("--eval-only does not apply here: accuracies are measured while training")
    choose_gpus(args)
    if args.dry_run:
        dry_run(args, add_configs)
        return
    run_in_processes(train_process, args, args, add_configs)


def train_process(args: argparse.Namespace, add_configs=()) -> None:
    """One process of a run."""
    with held_back_logs():  # nothing is written until all is checked
        cfg, trainer = checked_trainer(args, add_configs)
        prepare_run_folder(cfg, args.resume)
    trainer.run_to_record(cfg, recipe_name(args.config_file))


def checked_trainer(args: argparse.Namespace, add_configs) -> tuple[CfgNode, ClassifierTrainer]:
    """Config and trainer of a run that can start, or resume. Nothing is written.

    Raises:
        ValueError: it cannot.
    """
    cfg, weights = build_config(args, add_configs)
    check_output(cfg, args.resume)
    choose_threads(cfg)
    trainer = ClassifierTrainer(cfg, weights)
    if args.resume:
        trainer.resume()
    trainer.check_disk_space()
    return cfg, trainer


def dry_run(args: argparse.Namespace, add_configs) -> None:
    """Check all that a run checks, in one process, and print what it will be."""
    if processes_of_torchrun():
        raise ValueError("--dry-run runs in one process: start it without torchrun")
    cfg, trainer = checked_trainer(args, add_configs)
    done, weights, solver = trainer.start_iter, trainer.weights, cfg.SOLVER
    needed, free = trainer.check_disk_space()
    processes = count(num_processes(args), "process", "processes")
    what = f"a linear classifier on frozen {cfg.CLASSIFY.ARCH}" if cfg.CLASSIFY.FREEZE else cfg.CLASSIFY.ARCH
    print(f"Dry run of {args.config_file}")
    show(
        [
            changed_settings(cfg, get_config_file(args.config_file), add_configs),
            (
                "images",
                f"{trainer.num_images:,} of {count(len(trainer.classes), 'class', 'classes')}"
                f" in {trainer.train_set.root}, measured on {len(trainer.test_set):,} of {trainer.test_set.root}",
            ),
            ("trained", what),
            (
                "weights",
                f"{weights.path}: {weights.source}, sha256 {weights.sha256[:12]}"
                if weights
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


@user_errors
def main(argv: list[str] | None = None) -> None:
    """``tools/train_classifier.py``."""
    run(argument_parser().parse_args(argv))
