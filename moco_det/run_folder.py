"""The folder of a run that trains by epochs: nothing is written over, a run continues as itself or not at all."""

import logging
import os

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from moco_det.checkpoint_files import newest_first, remove_left_over
from moco_det.config import get_cfg, known_keys, load_yaml
from moco_det.files import appears_whole, existing_parent
from moco_det.run_record import MACHINE_KEYS

logger = logging.getLogger(__name__)


def prepare_run_folder(cfg, resume: bool) -> None:
    """Make OUTPUT_DIR with log and config; refuse to write over another run, or to continue it as another."""
    changes = check_output(cfg, resume)
    comm.synchronize()
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    log_to(cfg.OUTPUT_DIR, "moco_det", "fvcore")
    for change in changes:
        logger.warning(f"--resume: {change}; the epochs to come follow the new schedule")
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    # Else two runs of the same config differ in their last bits on a GPU.
    torch.backends.cudnn.deterministic = not cfg.CUDNN_BENCHMARK
    if comm.is_main_process():
        for name in remove_left_over(cfg.OUTPUT_DIR):
            logger.info(f"Removed {name}, which an earlier process left half-written")
        with appears_whole(os.path.join(cfg.OUTPUT_DIR, "config.yaml")) as temporary:
            temporary.write_text(cfg.dump())


def log_to(output: str, *names: str) -> None:
    """Let these loggers write to ``output/log.txt`` (of this rank), and on rank 0 to the screen."""
    for name in names:
        # detectron2 remembers by name which folders it has opened; a relative name can come to mean another.
        setup_logger(os.path.abspath(output), distributed_rank=comm.get_rank(), name=name)


def check_output(cfg, resume: bool) -> list[str]:
    """Refuse to write over another run, to continue it as another, or to write where that is not allowed.

    Returns:
        what a continuation changes, see :func:`check_continuation`.
    """
    changes = []
    if newest_first(cfg.OUTPUT_DIR):
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


def settle_seed(cfg: CfgNode, resume: bool) -> None:
    """A run always has a seed: the config's, the resumed run's, or one drawn now and written to config.yaml."""
    if cfg.SEED >= 0:
        return
    saved = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
    if resume and os.path.exists(saved):
        cfg.SEED = load_yaml(saved)["SEED"]
    cfg.SEED = comm.all_gather(cfg.SEED)[0]
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed() % 2**31


# What may differ between a run and its continuation: where and how it is carried out and watched.
MAY_CHANGE = {
    *(key for key in MACHINE_KEYS if key != "SEED"),
    *("DATASETS.MAX_UNREADABLE", "TEST.KNN.K", "TEST.KNN.TEMPERATURE", "TEST.KNN.PERIOD_EPOCHS"),
}


# What a continuation may change knowingly: it is named in the log. More epochs make a run longer.
MAY_CHANGE_NAMED = {"SOLVER.EPOCHS", "SOLVER.STEP_EPOCHS"}


def check_continuation(cfg: CfgNode) -> list[str]:
    """Refuse to continue the run in OUTPUT_DIR as another one.

    Returns:
        a sentence for each change that is accepted and that the log should name.

    Raises:
        ValueError: names each key that differs, with both values.
    """
    saved = load_yaml(os.path.join(cfg.OUTPUT_DIR, "config.yaml"))
    asked = yaml.safe_load(cfg.dump())  # the same way round, so that tuples compare with lists
    # A key that is younger than the run had the effect of its default.
    defaults = yaml.safe_load(get_cfg().dump())
    were = {key: _get(saved, key, _get(defaults, key)) for key in known_keys(cfg)}
    differ = {
        key: f"{key} was {was!r}, is {_get(asked, key)!r}"
        for key, was in were.items()
        if key not in MAY_CHANGE and was != _get(asked, key)
    }
    refused = [differ[key] for key in differ if key not in MAY_CHANGE_NAMED]
    if refused:
        raise ValueError(
            f"--resume would continue {cfg.OUTPUT_DIR!r} with other settings: {'; '.join(refused)}; give the "
            "same, or start anew in another OUTPUT_DIR"
        )
    return list(differ.values())


def _get(config: dict, key: str, default=None):
    *parents, name = key.split(".")
    for parent in parents:
        config = config.get(parent, {})
    return config.get(name, default)
