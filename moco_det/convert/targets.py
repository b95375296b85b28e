"""What a conversion can write: detectron2's names in three formats, and the way back to other libraries."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from moco_det.utils.files import atomic_write
from moco_det.weights.backbone_file import Preprocessing, write_backbone
from moco_det.weights.backbone_tensors import STEP_COUNTER
from moco_det_cli.parsers.choices import TARGET_ENDINGS as ENDINGS


@dataclasses.dataclass(frozen=True)
class Target:
    """A library that will load the file.

    Attributes:
        endings: of the files that it loads, the usual one first.
        detectron2_names: whether tensors have detectron2's names; else they have torchvision's.
        stride_in_1x1: whether it has such a network.
    """

    endings: tuple[str, ...]
    detectron2_names: bool = False
    stride_in_1x1: bool = False


TARGETS = {
    "detectron2": Target(ENDINGS["detectron2"], detectron2_names=True, stride_in_1x1=True),
    "safetensors": Target(ENDINGS["safetensors"], detectron2_names=True, stride_in_1x1=True),
    "torchvision": Target(ENDINGS["torchvision"]),
    "timm": Target(ENDINGS["timm"]),
    "mmdet": Target(ENDINGS["mmdet"], stride_in_1x1=True),
}


def check_target(target: str, output: Path, preprocessing: Preprocessing | None = None) -> None:
    """Refuse what the target cannot load.

    Raises:
        ValueError: another ending, or a network that it does not have.
    """
    kind = TARGETS[target]
    if output.suffix not in kind.endings:
        raise ValueError(
            f"output {str(output)!r} must end in {' or '.join(map(repr, kind.endings))} for --to {target}: "
            "the ending says the kind of file"
        )
    if preprocessing is not None and preprocessing.stride_in_1x1 and not kind.stride_in_1x1:
        raise ValueError(
            f"the source's bottlenecks have their stride in the first 1x1, and {target} has no such network; "
            "--to mmdet (style='caffe') and --to detectron2 have"
        )


def records_preprocessing(target: str, output: Path) -> bool:
    """Whether the file has a place for it; what torchvision and timm load from a ``.pth`` are tensors alone."""
    return output.suffix != ".pth" or target in ("detectron2", "mmdet")


def write_target(
    path: Path,
    target: str,
    tensors: Mapping[str, torch.Tensor],
    preprocessing: Preprocessing,
    provenance: Mapping[str, Any],
    check: Callable[[Path], None],
) -> None:
    """Write the file, whole or not at all.

    Args:
        tensors: the target's names and float32 tensors.
        check: called with the finished temporary file; when it raises, ``path`` stays as it was.
    """
    if path.suffix == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        write_backbone(path, arrays, preprocessing, provenance, check)
        return
    record = {"preprocessing": preprocessing.to_dict(), "provenance": dict(provenance)}
    states = dict(tensors) if TARGETS[target].detectron2_names else _with_step_counters(tensors)
    with atomic_write(path) as temporary:
        if path.suffix == ".safetensors":
            _save_safetensors(states, temporary, record)
        else:
            torch.save(_content(target, states, record), temporary)
        check(temporary)


def _content(target: str, states: dict[str, torch.Tensor], record: dict[str, Any]) -> dict[str, Any]:
    if target == "detectron2":
        return {"model": states, "__author__": "moco_det", "matching_heuristics": True, "moco_det": record}
    if target == "mmdet":
        preprocessing = record["preprocessing"]
        style = "caffe" if preprocessing["stride_in_1x1"] else "pytorch"
        meta = {"style": style, **preprocessing, **record["provenance"]}
        return {"state_dict": states, "meta": meta, "moco_det": record}
    return states


def _with_step_counters(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each norm's counter after its statistics, as those libraries' strict loading wants it."""
    states = {}
    for name, tensor in tensors.items():
        states[name] = tensor
        if name.endswith(".running_var"):
            states[f"{name.rpartition('.')[0]}.{STEP_COUNTER}"] = torch.tensor(0)
    return states


def _save_safetensors(states: dict[str, torch.Tensor], path: Path, record: dict[str, Any]) -> None:
    try:
        from safetensors.torch import save_file  # here, since only users of such files need the package
    except ImportError as error:
        raise ValueError(
            "a .safetensors file needs the package safetensors; pip install 'moco_det[convert]'"
        ) from error
    save_file(states, path, metadata={"format": "pt", "moco_det": json.dumps(record)})
