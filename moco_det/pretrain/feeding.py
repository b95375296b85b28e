"""Says when a run waits for its images, and what to change."""

import logging

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from moco_det.engine.hooks import is_due
from moco_det.pretrain.loader import augments_on_device
from moco_det.utils.machine import num_cores
from moco_det.utils.metric_names import DATA_WAIT

logger = logging.getLogger(__name__)

WAITS = 0.1  # fraction of the time
QUIET_PERIODS = 50  # of the log, between two warnings


def fixes_of_waiting(cfg: CfgNode, cores: int, processes: int) -> list[str]:
    """What to change when steps wait for images, the easiest first.

    Args:
        cores: of this machine, which its ``processes`` share.
    """
    workers, each = cfg.DATALOADER.NUM_WORKERS, max(cores // processes, 1)
    fixes = []
    if workers < each:
        fixes.append(f"DATALOADER.NUM_WORKERS {each}")
    if cfg.MODEL.DEVICE == "cuda" and not augments_on_device(cfg):
        fixes.append("INPUT.VIEWS.AUGMENT_ON device (colors on the GPU)")
    if cfg.DATALOADER.PREFETCH < 4 and workers:
        fixes.append("DATALOADER.PREFETCH 4 if the disk is slow now and then")
    fixes.append("images made small once by tools/pack_images.py")
    fixes.append("a faster disk" if workers < each else "a faster disk or more cores")
    return fixes


def describe_waiting(cfg: CfgNode, data_wait: float, cores: int, processes: int) -> str:
    """A verdict in words.

    Args:
        data_wait: fraction of a step's time in which it waits for images; cores, processes: of
            :func:`fixes_of_waiting`.
    """
    return (
        f"input-bound: steps wait for images {data_wait:.0%} of their time ({cfg.DATALOADER.NUM_WORKERS} workers "
        f"for each of {processes} process{'es'[: 2 * (processes > 1)]} on {cores} cores). In this order: "
        + "; ".join(fixes_of_waiting(cfg, cores, processes))
    )


class DataWaitWatch(HookBase):
    """Warns when steps wait for images, once in a while; not of the start, when the workers have nothing ready."""

    def __init__(self, cfg: CfgNode, period: int):
        self.cfg, self.period = cfg, period
        self.periods, self.warned = 0, -QUIET_PERIODS

    def after_step(self):
        if not comm.is_main_process() or not is_due(self.trainer, self.period):
            return
        self.periods += 1
        waits = self.trainer.storage.latest()[DATA_WAIT][0]
        if waits > WAITS and self.periods > 1 and self.periods - self.warned >= QUIET_PERIODS:
            self.warned = self.periods
            logger.warning(describe_waiting(self.cfg, waits, num_cores(), comm.get_local_size()))
