"""Checkpoint files where disks fail and processes are killed: checksums, the newest whole one, left-overs.

Torch stores each tensor as a record of a zip file with a CRC-32, and does not look at it when it loads: a flipped
bit in a weight becomes another weight. Here it is looked at.
"""

import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from moco_det.weights.backbone_file import refused_by_torch

_NAME = re.compile(r"model_(\d{7}|final)\.pth")
_LEFT_OVER = re.compile(r"\..+\.\d+\.tmp")  # of moco_det.utils.files.atomic_write


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not as it was written."""


def read_checked(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values, on the CPU; no code from it runs.

    Raises:
        DamagedCheckpoint: it is truncated, or a byte of it changed.
        ValueError: it is whole and asks for foreign code.
    """
    try:
        with zipfile.ZipFile(path) as records:
            damaged = records.testzip()
    except Exception as error:  # zipfile raises nearly anything on changed bytes
        raise DamagedCheckpoint(f"{str(path)!r} is damaged ({error})") from error
    if damaged is not None:
        raise DamagedCheckpoint(f"{str(path)!r} is damaged (the checksum of its record {damaged!r} is wrong)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(path)!r} {refused_by_torch(error)}, so it is not a checkpoint of a run; it was not read"
        ) from error
    except Exception as error:  # the table of the records has no checksum
        reason = str(error).partition("\n")[0]
        raise DamagedCheckpoint(f"{str(path)!r} is damaged ({reason})") from error


def newest_first(folder: str | os.PathLike) -> list[Path]:
    """The checkpoints of a run, ``model_<iteration>.pth`` and ``model_final.pth``, by their iterations."""
    found = [path for path in Path(folder).glob("model_*.pth") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_iteration, reverse=True)


def _iteration(path: Path) -> float:
    number = _NAME.fullmatch(path.name)[1]
    if number != "final":
        return int(number)
    try:  # a run that was made longer has newer ones
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)["iteration"] + 0.5
    except Exception:  # damaged: who reads it says so
        return float("inf")


def newest_whole(folder: str | os.PathLike) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be read, and of each newer one what is wrong with it.

    Raises:
        ValueError: there are checkpoints and all are damaged.
    """
    damaged = []
    for path in newest_first(folder):
        try:
            read_checked(path)
        except DamagedCheckpoint as error:
            damaged.append(str(error))
        else:
            return path, damaged
    if damaged:
        raise ValueError(
            f"no checkpoint of the run can be read: {'; '.join(damaged)}; restore one from a copy, or start again "
            "in another OUTPUT_DIR"
        )
    return None, []


def keep_newest(folder: str | os.PathLike, count: int) -> None:
    """Remove all numbered checkpoints but the newest ``count``; 0 keeps all."""
    numbered = [path for path in newest_first(folder) if path.name != "model_final.pth"]
    for path in numbered[count:] if count else []:
        path.unlink(missing_ok=True)


def remove_left_over(folder: str | os.PathLike) -> list[str]:
    """Remove the half-written files that a process killed inside a save left; returns their names."""
    found = [path for path in Path(folder).glob(".*.tmp") if _LEFT_OVER.fullmatch(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return sorted(path.name for path in found)
