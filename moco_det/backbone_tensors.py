"""A ResNet's tensors by torchvision's names: which architecture they are, and whether they are all there."""

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from moco_det.encoder import STAGE_BLOCKS, build_resnet

STEP_COUNTER = "num_batches_tracked"


def find_arch(values: Mapping[str, Any]) -> str:
    """Read the architecture from the tensors: depth from the blocks, groups and width from the first 3x3.

    Args:
        values: torchvision's names and tensors of one ResNet.

    Returns:
        A name for ``build_resnet``; torchvision's ``wide_resnet50_2`` is ``"resnext50_1x128d"``.

    Raises:
        ValueError: no ResNet has these blocks.
    """
    has_bottlenecks = any(re.fullmatch(r"layer\d\.\d+\.conv3\.weight", name) for name in values)
    blocks = tuple(_count_blocks(values, stage) for stage in range(1, 5))
    for depth, expected in STAGE_BLOCKS.items():
        if blocks == expected and has_bottlenecks == (depth >= 50):
            groups, width = _groups_and_width(values) if has_bottlenecks else (1, 64)
            plain = (groups, width) == (1, 64)
            return f"resnet{depth}" if plain else f"resnext{depth}_{groups}x{width}d"
    kind = "bottlenecks" if has_bottlenecks else "basic blocks"
    known = ", ".join(f"{depth}: {expected}" for depth, expected in STAGE_BLOCKS.items())
    raise ValueError(
        f"layer1 to layer4 have {blocks} {kind}; expected a ResNet's (basic blocks below depth 50): {known}. "
        "A stage or block is missing, or the encoder is no ResNet"
    )


def _count_blocks(names: Mapping[str, Any], stage: int) -> int:
    found = (re.match(rf"layer{stage}\.(\d+)\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _groups_and_width(values: Mapping[str, Any]) -> tuple[int, int]:
    """(groups, width per group), from a weight of shape (groups * width, width, 3, 3).

    A weight that cannot be so gives the plain ResNet's, against which it is then refused by name.
    """
    shape = tuple(getattr(values.get("layer1.0.conv2.weight"), "shape", ()))
    if len(shape) != 4 or shape[1] == 0 or shape[0] == 0 or shape[0] % shape[1]:
        return 1, 64
    return shape[0] // shape[1], shape[1]


@functools.cache
def expected_shapes(arch: str) -> Mapping[str, torch.Size]:
    """Names and shapes of the backbone's tensors (265 for resnet50), without head and step counters."""
    with torch.device("meta"):
        states = build_resnet(arch).state_dict()
    shapes = {
        name: value.shape
        for name, value in states.items()
        if not name.startswith("fc.") and not name.endswith(STEP_COUNTER)
    }
    return MappingProxyType(shapes)  # all callers share it


def check_backbone(values: Mapping[str, Any], arch: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Compare a backbone with its architecture, tensor by tensor.

    Returns:
        The tensors in torchvision's order as float32, and a note for each dtype that was converted.

    Raises:
        ValueError: a tensor is missing, left over, of another shape or kind, or not finite; names them.
    """
    expected = expected_shapes(arch)
    common = [name for name in expected if name in values]
    strange = [name for name in common if not is_real(values[name])]
    real = {name: torch.as_tensor(values[name]).detach() for name in common if name not in strange}
    others = {name: tensor for name, tensor in real.items() if tensor.shape != expected[name]}
    problems = {
        "missing": [name for name in expected if name not in values],
        "left over": [name for name in values if name not in expected],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name])}"
            for name, tensor in others.items()
        ],
        "no floating-point tensors": strange,
    }
    _refuse(problems, arch)
    tensors = {name: tensor.float().contiguous() for name, tensor in real.items()}
    infinite = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    _refuse({"not finite in float32 (did the training diverge?)": infinite}, arch)
    return tensors, _dtype_notes(real)


def _refuse(problems: Mapping[str, list[str]], arch: str) -> None:
    found = [listed(problem, names) for problem, names in problems.items() if names]
    if found:
        raise ValueError(
            f"the backbone is no intact {arch}: {'; '.join(found)}. "
            "take a complete checkpoint of a plain ResNet"
        )


def is_real(value: Any) -> bool:
    """Is it a tensor or array of real floating-point numbers that torch can take?"""
    if isinstance(value, np.ndarray):
        return value.dtype in (np.float16, np.float32, np.float64)  # native byte order, as torch needs it
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def listed(problem: str, names: list[str]) -> str:
    """The names that have a problem, in words."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {problem}: {', '.join(names[:3])}{more}"


def _dtype_notes(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()]
    return [
        f"{dtypes.count(dtype)} tensors were {dtype} and are now float32"
        for dtype in sorted(set(dtypes) - {"float32"})
    ]
