"""``tools/pretrain_moco.py --plan`` and ``--dry-run``: what a run will be, before it starts. Nothing is written.

A dry run is the plan without its trial: all that can be known without taking a step, in seconds.
"""

import argparse
import dataclasses

import torch

from moco_det.data.image_format import ImageFormat
from moco_det.engine.launch import choose_gpus, num_processes, processes_of_torchrun
from moco_det.engine.plan_text import PlanRow, changed_settings, count, fill, show, show_start
from moco_det.engine.threads import choose_threads
from moco_det.model_zoo import get_config_file
from moco_det.modeling.precision import describe_precision, encoder_precision, precision_name
from moco_det.pretrain.plan.advice import Advice, advise
from moco_det.pretrain.plan.facts import (
    LINEAR_BATCH,
    PAPER_STEPS,
    Facts,
    duration,
    typical_side,
)
from moco_det.pretrain.plan.trial import explain_out_of_memory, run_trial, trial_config
from moco_det.pretrain.preflight import check_run, unlabeled_images
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.utils.disk_space import check_disk_space, checkpoint_bytes, checkpoints_at_most
from moco_det.utils.files import gib

ASKS = ("--plan", "--dry-run")


def run(args: argparse.Namespace, add_configs) -> None:
    """Check all that a run checks, take a few steps (``--plan``), and print what the run will be.

    Args:
        args, add_configs: as of the run.

    Raises:
        ValueError: the run cannot start, or not finish.
    """
    here = settle(args)
    cfg = build_config(args, add_configs)
    paths = unlabeled_images(cfg)
    ranks = num_processes(args)
    check_run(cfg, len(paths), ranks, args.resume)
    facts = Facts(
        cfg, len(paths), ranks, args.num_machines, typical_side(paths, ImageFormat.from_config(cfg))
    )
    choose_threads(trial_config(facts))
    with explain_out_of_memory(facts):
        trainer = PretrainTrainer(trial_config(facts), paths)
        if args.resume:
            trainer.resume()
        facts = dataclasses.replace(facts, start=trainer.start_iter)
        disk = disk_row(facts, trainer.method)
        print(f"Plan of {args.config_file}")
        show([changed_settings(cfg, get_config_file(args.config_file), add_configs), *rows(facts), disk])
        if args.plan and here and facts.start < facts.steps:
            facts = dataclasses.replace(facts, trial=run_trial(trainer))
    if args.plan:
        show(trial_rows(facts))
    show_advice(advise(facts))
    show_start(ASKS)


def settle(args: argparse.Namespace) -> bool:
    """Settle the processes of the run; they may be on another machine.

    Returns:
        whether this machine has the hardware of one of them.
    """
    if processes_of_torchrun():
        raise ValueError(
            f"{'--plan' if args.plan else '--dry-run'} runs in one process: start it without torchrun, with the "
            "run's --num-gpus (of one machine) and --num-machines"
        )
    if args.num_gpus is None or args.num_gpus <= torch.cuda.device_count():
        choose_gpus(args)
    return args.num_gpus == 0 or torch.cuda.is_available()


def rows(facts: Facts) -> list[PlanRow]:
    """The run in numbers that need no trial."""
    cfg, solver = facts.cfg, facts.cfg.SOLVER
    side = f"; shorter side {facts.side} px (median), views {cfg.INPUT.VIEWS.SIZE} px" if facts.side else ""
    parts = "" if solver.ACCUMULATE == 1 else f", in {solver.ACCUMULATE} micro-batches of {facts.micro_batch}"
    processes = "1 process" if facts.ranks == 1 else f"{facts.ranks} processes, {facts.local} each"
    groups, over = facts.local // facts.group, "in each process"
    if facts.group > facts.local:
        groups, over = facts.batch // facts.group, f"each over {facts.group // facts.local} processes"
    left_out = f", without {count(facts.dropped, 'image')} (others each time)" if facts.dropped else ""
    resumed = f"; {facts.start:,} are done" if facts.start else ""
    return [
        ("images", f"{facts.num_images:,} in {cfg.DATASETS.IMAGES or ', '.join(cfg.DATASETS.TRAIN)}{side}"),
        ("a step", f"{facts.batch} images on {processes}{parts}"),
        ("batch norm", f"{count(groups, 'group')} of {facts.group} images {over}"),
        ("an epoch", f"{count(facts.steps_per_epoch, 'step')}{left_out}"),
        (
            "the run",
            f"{count(solver.EPOCHS, 'epoch')}, {count(facts.steps, 'step')} (the paper: {PAPER_STEPS:,}), "
            f"{2 * facts.samples:,} views{resumed}",
        ),
        *method_rows(facts),
    ]


def method_rows(facts: Facts) -> list[PlanRow]:
    """The learning rate against the rule of the method's paper, and what the method says of itself."""
    rule = ""
    if facts.linear_lr is not None:
        rule = (
            f"; the linear rule, {facts.method.linear_rule[1]} x {facts.batch} / {LINEAR_BATCH}, gives "
            f"{facts.linear_lr:.4g}"
        )
    return [
        ("learning rate", f"{facts.cfg.SOLVER.BASE_LR:g} {_schedule(facts.cfg)}{rule}"),
        *facts.method.plan_rows(facts),
    ]


def _schedule(cfg) -> str:
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "EpochCosineLR":
        return "falling along half a cosine"
    if solver.LR_SCHEDULER_NAME == "CosineLR":
        rising = f"rising over {count(solver.WARMUP_EPOCHS, 'epoch')}, then " if solver.WARMUP_EPOCHS else ""
        return f"{rising}falling along half a cosine to {solver.BASE_LR_END:g}"
    return f"times {solver.GAMMA:g} after epochs {', '.join(map(str, solver.STEP_EPOCHS))}"


def disk_row(facts: Facts, model) -> PlanRow:
    """What the checkpoints take.

    Raises:
        ValueError: there is too little space.
    """
    cfg, done = facts.cfg, facts.start // facts.steps_per_epoch
    needed, free = check_disk_space(cfg, model, done)
    return (
        "checkpoints",
        f"every {count(cfg.SOLVER.CHECKPOINT_EPOCHS, 'epoch')}, {checkpoints_at_most(cfg, done)} at once, "
        f"{gib(checkpoint_bytes(cfg, model))} each: {gib(needed)} of {gib(free)} free at {cfg.OUTPUT_DIR}",
    )


def trial_rows(facts: Facts) -> list[PlanRow]:
    """Speed, memory and time, as far as a trial can tell them."""
    trial = facts.trial
    if facts.start >= facts.steps:
        return [("trial", "none: this run is finished")]
    if trial is None:
        return [
            (
                "trial",
                "none: this machine has no CUDA GPU, so speed, memory and time are unknown; plan there",
            ),
            *reference_rows(facts),
        ]
    cut = (
        ""
        if facts.group <= facts.local
        else f"; batch norm over {facts.local} images instead of {facts.group}"
    )
    memory = (
        "of the process, at most" if trial.total_bytes is None else f"of the GPU's {gib(trial.total_bytes)}"
    )
    without = "kNN and checkpoints" + ("" if facts.ranks == 1 else ", and what processes tell each other")
    return [
        ("trial", f"{count(trial.steps, 'step')} of {facts.local} images on {trial.device}{cut}"),
        ("precision", describe_precision(facts.cfg)),
        (
            "speed",
            f"{trial.seconds:.3g} s a step, {facts.local / trial.seconds:.4g} images/s a process, "
            f"{trial.data_wait:.0%} waiting for data",
        ),
        ("memory", f"{gib(trial.peak_bytes)} {memory}"),
        ("time", f"{duration(facts.seconds)} for {facts.steps - facts.start:,} steps, without {without}"),
    ]


def reference_rows(facts: Facts) -> list[PlanRow]:
    """What MoCo v2's Table 3 says of memory, where the encoder is the same."""
    if facts.cfg.MODEL.ENCODER.ARCH != "resnet50":
        return []
    return [
        (
            "memory",
            "the paper: 5.0 GB a GPU with 32 images of 224 px in float32 (MoCo v2, Table 3); here "
            f"{facts.micro_batch} of {facts.cfg.INPUT.VIEWS.SIZE} px in "
            f"{precision_name(encoder_precision(facts.cfg))}",
        )
    ]


def show_advice(found: list[Advice]) -> None:
    """Print what the rules say; settings stand in one line, to be copied."""
    if not found:
        print("Advice: none; the rules of this tool find nothing to change")
        return
    print("Advice")
    for number, advice in enumerate(found, 1):
        print(fill(f"  {number}. {advice.found}", 5))
        print(f"     set  {advice.fix}")
        print(fill(f"     why  {advice.why}", 10))
