"""A few steps of one process, timed: the run's model and images, nothing written."""

import contextlib
import time

import torch
from detectron2.config import CfgNode

from moco_det.pretrain.plan.advice import save_memory
from moco_det.pretrain.plan.facts import Facts, Trial
from moco_det.utils.machine import num_cores, peak_memory_bytes

WARM_UP_SECONDS, SECONDS = 10, 20
CPU_STEPS = 10  # a GPU takes as many as fit the time


def trial_config(facts: Facts) -> CfgNode:
    """The config of one of the run's processes by itself, on what this machine has."""
    cfg = facts.cfg.clone()
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH = facts.local
    cfg.MODEL.ENCODER.BN_GROUP_SIZE = min(facts.group, facts.local)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def run_trial(trainer) -> Trial:
    """Train a few steps and forget them.

    Args:
        trainer: a PretrainTrainer of :func:`trial_config`; of no use afterwards.
    """
    cfg, cuda = trainer.cfg, trainer.cfg.MODEL.DEVICE == "cuda"
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    trainer.model.train()
    trainer.batches = iter(trainer.loader())
    trainer.iter = max(trainer.start_iter, 1)  # step 0 would write a picture
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    # What the workers have ready ahead must be used up before waiting is measured.
    _take_steps(trainer, 2 + cfg.DATALOADER.PREFETCH * cfg.DATALOADER.NUM_WORKERS, WARM_UP_SECONDS)
    steps, seconds, waited = _take_steps(trainer, None if cuda else CPU_STEPS, SECONDS)
    del trainer.batches  # ends the workers
    threads = torch.get_num_threads()
    return Trial(
        device=torch.cuda.get_device_name() if cuda else f"this CPU ({threads} thread{'s'[: threads > 1]})",
        steps=steps,
        seconds=seconds / steps,
        data_wait=waited / seconds,
        peak_bytes=peak_memory_bytes(cfg.MODEL.DEVICE),
        total_bytes=torch.cuda.get_device_properties(0).total_memory if cuda else None,
        cores=num_cores(),
    )


def _take_steps(trainer, at_most: int | None, seconds: float) -> tuple[int, float, float]:
    """Steps taken (at least one), their seconds, and those in which they waited for images."""
    steps, waited, start = 0, 0.0, time.perf_counter()
    while steps == 0 or (steps != at_most and time.perf_counter() - start < seconds):
        trainer.run_step()
        trainer.iter += 1
        steps, waited = steps + 1, waited + trainer.data_seconds
    if trainer.cfg.MODEL.DEVICE == "cuda":
        torch.cuda.synchronize()
    return steps, time.perf_counter() - start, waited


@contextlib.contextmanager
def explain_out_of_memory(facts: Facts):
    """Say what to set when the GPU is too small.

    Raises:
        ValueError: in place of CUDA's out of memory.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError(
            f"a step of {facts.local} images on each process, {facts.micro_batch} at a time, does not fit the GPU "
            f"({str(error).splitlines()[0]}); set {save_memory(facts)}"
        ) from error
