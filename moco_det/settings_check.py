"""Settings that every stage which trains reads: what they may be, asked before anything else."""

import difflib
import math

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY


def check_common(cfg: CfgNode) -> None:
    """Refuse an unknown model, and a device, an input, workers or an optimizer that cannot be.

    Raises:
        ValueError: with the key, the value found, and what was expected or the nearest name.
    """
    name, architectures = cfg.MODEL.META_ARCHITECTURE, [name for name, _ in META_ARCH_REGISTRY]
    if name not in architectures:
        near = difflib.get_close_matches(name, architectures, n=1, cutoff=0)
        raise ValueError(f"MODEL.META_ARCHITECTURE is {name!r}; the nearest that there is is {near[0]!r}")
    if cfg.MODEL.DEVICE.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; expected 'cuda' or 'cpu'")
    if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
        raise ValueError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; expected 'RGB' or 'BGR'")
    for key, least in (("PIXEL_MEAN", -math.inf), ("PIXEL_STD", 0)):
        values = list(cfg.MODEL[key])
        if len(values) != 3 or not all(least < value < math.inf for value in values):
            above = ", each above 0" if least == 0 else ""
            raise ValueError(f"MODEL.{key} is {values}; expected three numbers{above}")
    if cfg.DATALOADER.NUM_WORKERS < 0:
        raise ValueError(f"DATALOADER.NUM_WORKERS is {cfg.DATALOADER.NUM_WORKERS}; expected 0 or more")
    solver = cfg.SOLVER
    for key, value, below in (
        ("MOMENTUM", solver.MOMENTUM, 1),
        ("WEIGHT_DECAY", solver.WEIGHT_DECAY, math.inf),
        ("GAMMA", solver.GAMMA, math.inf),
    ):
        if not 0 <= value < below:
            least = "0 or more" + (f", below {below}" if below == 1 else "")
            raise ValueError(f"SOLVER.{key} is {value}; expected {least}")
