"""The processes that a run takes place in: started here, or by torchrun."""

import argparse
import contextlib
import math
import os
from collections.abc import Callable

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from moco_det.engine.interruption import passes_signals_on
from moco_det.engine.lost_processes import with_heartbeat
from moco_det.engine.record import resume_command, running_commit
from moco_det.utils.children import resumed_by


def choose_gpus(args: argparse.Namespace) -> None:
    """Set ``args.num_gpus``, the GPUs used on this machine: those asked for, else one where there is one, or as
    many as torchrun started processes; 0 is the CPU. A restart by torchrun sets ``args.resume``.

    Raises:
        ValueError: more are asked for than this machine has, or they contradict torchrun.
    """
    available = torch.cuda.device_count()
    started = processes_of_torchrun()
    if args.num_gpus is None:
        args.num_gpus = started if started and available else min(1, available)
    if started and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):
        args.resume = True  # after a loss, torchrun starts all processes again
    if not 0 <= args.num_gpus <= available:
        raise ValueError(
            f"--num-gpus is {args.num_gpus}, but this machine has {available} CUDA GPUs; expected 0 (the CPU) "
            f"to {available}"
        )
    if started and args.num_gpus not in (0, started):
        raise ValueError(
            f"torchrun started {started} processes on this machine, but --num-gpus is {args.num_gpus}; "
            "leave --num-gpus out, or give 0 for the CPU"
        )
    if started and args.num_machines > 1:
        raise ValueError(
            f"--num-machines is {args.num_machines} under torchrun, which has --nnodes for it; leave it out"
        )


def processes_of_torchrun() -> int:
    """How many processes torchrun started on this machine; 0 when this process is not one of them."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 0


def num_processes(args: argparse.Namespace) -> int:
    """The number of processes over all machines: one per GPU, or one per machine on CPUs."""
    if processes_of_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return max(args.num_gpus, 1) * args.num_machines


def check_batch(images_per_batch: int, processes: int) -> None:
    """Raises ValueError: the processes of a run cannot share SOLVER.IMS_PER_BATCH equally."""
    if images_per_batch < 1 or images_per_batch % processes:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {images_per_batch}; expected a multiple of the {processes} processes, since "
            f"it counts the images of all of them: for example {max(images_per_batch // processes, 1) * processes}"
        )


def check_groups(key: str, group: int, batch: int, ranks: int, parts: int = 1) -> None:
    """Refuse batch-norm groups and micro-batches that do not divide the images of a rank, or these them.

    Args:
        key: that of the group's size; group: images of a group.
        batch: images of a global batch, which the ranks divide.
        parts: micro-batches in which each rank takes its images (SOLVER.ACCUMULATE).

    Raises:
        ValueError: with the numbers and what would fit.
    """
    local = batch // ranks
    found = f"SOLVER.IMS_PER_BATCH is {batch}, that is {local} images on each of {ranks} processes"
    if parts > 1:
        found += f", in SOLVER.ACCUMULATE {parts} micro-batches"
    if local % parts:
        raise ValueError(f"{found}; expected a divisor of {local}, for example {math.gcd(local, parts)}")
    if (local // parts) % group and (group % local or batch % group):
        whose = "micro-batch" if parts > 1 else "process"
        raise ValueError(
            f"{found}, and {key} is {group}; expected a divisor of the {local // parts} images of a {whose}, for "
            f"example {math.gcd(local // parts, group)}, or a multiple of {local} that divides {batch}"
        )
    if group > local and parts > 1:
        raise ValueError(
            f"{found}, and a batch-norm group of {group} images spans {group // local} processes: a micro-batch "
            "would be a part of a group; set SOLVER.ACCUMULATE 1 (SOLVER.ACTIVATION_CHECKPOINTING True saves "
            f"memory as well), or {key} lower"
        )


def num_machines(args: argparse.Namespace) -> int:
    """The number of machines on which ``args`` run."""
    started = processes_of_torchrun()
    return num_processes(args) // started if started else args.num_machines


def run_in_processes(function: Callable, args: argparse.Namespace, *function_args) -> None:
    """Call ``function(*function_args)`` in each process: those that torchrun started, else in new ones.

    NCCL joins processes that have GPUs, gloo those on CPUs. :func:`choose_gpus` comes first.
    """
    if processes_of_torchrun():
        with resumed_by("the same command resumes with --resume"):
            _run_under_torchrun(function, args, function_args)
        return
    if args.num_gpus == 0 and args.num_machines > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # detectron2 joins with NCCL wherever it sees a GPU
    starts_others = num_processes(args) > 1
    resumed = resumed_by(f"resume with: {resume_command()}")
    with resumed, passes_signals_on() if starts_others else contextlib.nullcontext():
        launch(
            _run,
            max(args.num_gpus, 1),
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(function, *function_args),
        )


def _run(function: Callable, *function_args) -> None:
    """What each process does."""
    if comm.is_main_process():
        running_commit()  # for the record; hours later the checkout may hold other code
    with_heartbeat(function, *function_args)


def _run_under_torchrun(function: Callable, args: argparse.Namespace, function_args: tuple) -> None:
    if args.num_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # After a restart, the store still holds the addresses of the processes before; gloo would wait for these.
    store, rank, world_size = next(rendezvous("env://"))
    store = distributed.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    distributed.init_process_group(
        "nccl" if args.num_gpus else "gloo", store=store, rank=rank, world_size=world_size
    )
    try:
        comm.create_local_process_group(processes_of_torchrun())
        _run(function, *function_args)
    finally:
        distributed.destroy_process_group()
