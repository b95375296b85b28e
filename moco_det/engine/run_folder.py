"""The folder of a run: nothing is written over, a run continues as itself or not at all."""

import logging
import os
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from moco_det.config import get_cfg, load_yaml
from moco_det.config.rules import changes_at_resume
from moco_det.engine.checkpoint_files import newest_first, remove_left_over
from moco_det.utils.files import atomic_write, existing_parent

logger = logging.getLogger(__name__)


def prepare_run_folder(cfg, resume: bool) -> None:
    """Make OUTPUT_DIR of a run by epochs, with log and config, after :func:`check_output`."""
    changes = check_output(cfg, resume)
    comm.synchronize()
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    log_to(cfg.OUTPUT_DIR, "moco_det", "fvcore")
    log_changes(changes)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    # Else two runs of the same config differ in their last bits on a GPU.
    torch.backends.cudnn.deterministic = not cfg.CUDNN_BENCHMARK
    if comm.is_main_process():
        for name in remove_left_over(cfg.OUTPUT_DIR):
            logger.info(f"Removed {name}, which an earlier process left half-written")
        with atomic_write(os.path.join(cfg.OUTPUT_DIR, "config.yaml")) as temporary:
            temporary.write_text(cfg.dump())


def log_to(output: str, *names: str) -> None:
    """Let these loggers write to ``output/log.txt`` (of this rank), and on rank 0 to the screen."""
    for name in names:
        # detectron2 remembers by name which folders it has opened; a relative name can come to mean another.
        setup_logger(os.path.abspath(output), distributed_rank=comm.get_rank(), name=name)


def log_changes(changes: Sequence[str]) -> None:
    """Name in the log what a continuation changes, see :func:`check_continuation`."""
    for change in changes:
        logger.warning(f"--resume: {change}")


def check_output(cfg, resume: bool, holds_run: bool = False) -> list[str]:
    """Refuse to write over another run, to continue it as another, or to write where that is not allowed.

    Args:
        holds_run: OUTPUT_DIR holds a run, also where no checkpoint of a run by epochs shows it.

    Returns:
        what a continuation changes, see :func:`check_continuation`.
    """
    changes = []
    if holds_run or newest_first(cfg.OUTPUT_DIR):
        if not resume:
            raise ValueError(
                f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} already holds a run; continue it with --resume, or choose another"
            )
        changes = check_continuation(cfg)
    check_writable(cfg.OUTPUT_DIR)
    return changes


def check_writable(output: str, name: str = "OUTPUT_DIR") -> None:
    """Raises ValueError: a folder, or the one it would be made in, cannot be written to; ``name`` set it."""
    there = existing_parent(output)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"{name} {output!r} cannot be written: {there!r} is no folder, or not yours to write to; "
            "choose another"
        )


def choose_seed(cfg: CfgNode, resume: bool) -> None:
    """A run always has a seed: the config's, the resumed run's, or a random one, written to config.yaml."""
    if cfg.SEED >= 0:
        return
    saved = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
    if resume and os.path.exists(saved):
        cfg.SEED = load_yaml(saved).get("SEED", -1)
    cfg.SEED = comm.all_gather(cfg.SEED)[0]
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed() % 2**31


def check_continuation(cfg: CfgNode) -> list[str]:
    """Refuse to continue the run in OUTPUT_DIR as another one.

    detectron2's own scripts write a config.yaml too. It lacks our keys, which then had the effect of their
    defaults, and may have no seed.

    Returns:
        a sentence for each change that is accepted and that the log should name.

    Raises:
        ValueError: names each key that differs, with both values.
    """
    path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
    if not os.path.exists(path):
        return [f"there is no {path!r}, so nobody knows whether the settings are the run's"]
    saved = load_yaml(path)
    if saved.get("SEED", -1) < 0:
        saved["SEED"] = cfg.SEED
    refused, named = changes_at_resume(cfg, saved, get_cfg())
    if refused:
        raise ValueError(
            f"--resume would continue {cfg.OUTPUT_DIR!r} with other settings: {'; '.join(refused)}; give the "
            "same, or start again in another OUTPUT_DIR"
        )
    return [f"{change}; it holds from here on" for change in named]
