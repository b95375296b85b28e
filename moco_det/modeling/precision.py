"""The arithmetic of the encoders: SOLVER.PRECISION, where the device gains by it."""

import torch
from detectron2.config import CfgNode

# Processors, by torch's names, that lack what its bfloat16 convolutions are written for (AVX512; SVE on ARM) and
# convert each number instead: with AVX2 a step of ResNet-18 took 5 to 50 times as long as in float32.
WITHOUT_BFLOAT16 = ("DEFAULT", "NO AVX", "AVX2")


def gains_by_bfloat16(device: str) -> bool:
    """Whether ``"cpu"`` is faster in bfloat16 than in float32; of a GPU it is assumed."""
    return device != "cpu" or torch.backends.cpu.get_cpu_capability() not in WITHOUT_BFLOAT16


def encoder_precision(cfg: CfgNode) -> torch.dtype:
    """SOLVER.PRECISION, but float32 instead of bfloat16 on a processor that is slower with it.

    bfloat16 is there to save time, and float32 loses nothing in its place: so one recipe serves every machine.
    """
    if cfg.SOLVER.PRECISION == "bfloat16" and not gains_by_bfloat16(cfg.MODEL.DEVICE):
        return torch.float32
    return getattr(torch, cfg.SOLVER.PRECISION)


def describe_precision(cfg: CfgNode) -> str:
    """What a log says: the precision that is computed in, and why if it is not the config's."""
    used, asked = precision_name(encoder_precision(cfg)), cfg.SOLVER.PRECISION
    return used if used == asked else f"{used}, since this processor is slower in {asked}"


def precision_name(dtype: torch.dtype) -> str:
    """The name of a type in SOLVER.PRECISION."""
    return str(dtype).removeprefix("torch.")
