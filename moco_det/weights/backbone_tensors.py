"""A ResNet's tensors by torchvision's names: which architecture they are, and whether they are all there."""

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from moco_det.config.architectures import STAGE_BLOCKS, Arch
from moco_det.modeling.encoder import build_resnet

STEP_COUNTER = "num_batches_tracked"


def find_arch(values: Mapping[str, Any]) -> str:
    """Read the architecture from the tensors: depth from the blocks, widths from the first layers.

    Args:
        values: torchvision's names and tensors of one ResNet.

    Returns:
        A name for ``build_resnet``; torchvision's ``wide_resnet50_2`` is ``"resnext50_1x128d"``.

    Raises:
        ValueError: detectron2 builds no ResNet with these blocks or widths.
    """
    has_bottlenecks = any(re.fullmatch(r"layer\d\.\d+\.conv3\.weight", name) for name in values)
    blocks = tuple(_count_blocks(values, stage) for stage in range(1, 5))
    for depth, expected in STAGE_BLOCKS.items():
        if blocks == expected and has_bottlenecks == (depth >= 50):
            return _with_widths(values, depth, has_bottlenecks).name
    kind = "bottlenecks" if has_bottlenecks else "basic blocks"
    known = ", ".join(f"{depth}: {expected}" for depth, expected in STAGE_BLOCKS.items())
    raise ValueError(
        f"layer1 to layer4 have {blocks} {kind}; detectron2 builds (basic blocks below depth 50) {known}. "
        "A stage or block is missing, or it is another network: take one of these depths"
    )


def _count_blocks(names: Mapping[str, Any], stage: int) -> int:
    found = (re.match(rf"layer{stage}\.(\d+)\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _with_widths(values: Mapping[str, Any], depth: int, has_bottlenecks: bool) -> Arch:
    arch = Arch(depth, *(_groups_and_width(values) if has_bottlenecks else ()))
    last = "conv3" if has_bottlenecks else "conv2"
    stages = [_channels(values, f"layer{stage}.0.{last}") for stage in range(1, 5)]
    if None in stages:  # damaged: the comparison with the usual widths names the tensors
        return arch
    doubled = [stages[0] * 2**stage for stage in range(4)]
    if stages != doubled:
        raise ValueError(
            f"layer1 to layer4 have {stages} channels; detectron2 doubles them from stage to stage "
            f"({doubled}), so it cannot build this network: take one of such widths"
        )
    if not has_bottlenecks and stages[0] != 64:
        raise ValueError(
            f"layer1 has {stages[0]} channels; detectron2 builds basic blocks (ResNet-18 and 34) only with "
            "MODEL.RESNETS.RES2_OUT_CHANNELS 64: take a network of the usual width, or one with bottlenecks"
        )
    if has_bottlenecks and stages[0] % 4:
        return arch
    stem = _channels(values, "conv1", "bn1") or 64
    return arch._replace(stem_channels=stem, out_channels=stages[0])


def _channels(values: Mapping[str, Any], conv: str, norm: str = "") -> int | None:
    """A convolution's output channels, if its norm has as many; None where one of them is damaged."""
    shapes = [
        tuple(getattr(values.get(f"{name}.weight"), "shape", ()))
        for name in (conv, norm or conv.replace("conv", "bn"))
    ]
    same = len(shapes[0]) == 4 and shapes[1] == shapes[0][:1] and shapes[0][0] > 0
    return shapes[0][0] if same else None


def in_channels(values: Mapping[str, Any]) -> int:
    """Channels of the images; 3 where the first convolution is damaged."""
    shape = tuple(getattr(values.get("conv1.weight"), "shape", ()))
    return shape[1] if len(shape) == 4 and shape[1] > 0 else 3


def with_channels(values: Mapping[str, Any], channels: int, rule: str = "repeat") -> dict[str, Any]:
    """The backbone for images of other channels: its first convolution is replaced, all else stays.

    Args:
        rule: ``"repeat"``: channel c has the filter of channel c modulo those before. ``"mean"``: each has
            the mean of all, as is also done to and from one channel. Both are then multiplied by channels before /
            channels after, so that an image of equal channels gives what it gave: exactly with ``"mean"``, about
            with ``"repeat"``.
    """
    weight = values.get("conv1.weight")
    if not is_real(weight) or weight.ndim != 4 or weight.shape[1] in (0, channels):
        return dict(values)  # or it is damaged, which the comparison with its architecture says
    weight = torch.as_tensor(weight).detach().float()
    before = weight.shape[1]
    if rule == "mean" or 1 in (channels, before):
        weight = weight.mean(1, keepdim=True).repeat(1, channels, 1, 1)
    else:
        weight = weight[:, torch.arange(channels) % before]
    return {**values, "conv1.weight": weight * (before / channels)}


def _groups_and_width(values: Mapping[str, Any]) -> tuple[int, int]:
    """(groups, width per group), from a weight of shape (groups * width, width, 3, 3).

    A weight that cannot be so gives the plain ResNet's, against which it is then refused by name.
    """
    shape = tuple(getattr(values.get("layer1.0.conv2.weight"), "shape", ()))
    if len(shape) != 4 or shape[1] == 0 or shape[0] == 0 or shape[0] % shape[1]:
        return 1, 64
    return shape[0] // shape[1], shape[1]


@functools.cache
def expected_shapes(arch: str, channels: int = 3) -> Mapping[str, torch.Size]:
    """Names and shapes of the backbone's tensors (265 for resnet50), without head and step counters."""
    with torch.device("meta"):
        states = build_resnet(arch, in_channels=channels).state_dict()
    shapes = {
        name: value.shape
        for name, value in states.items()
        if not name.startswith("fc.") and not name.endswith(STEP_COUNTER)
    }
    return MappingProxyType(shapes)  # all callers share it


def check_backbone(
    values: Mapping[str, Any], arch: str, channels: int = 3
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Compare a backbone with its architecture, for images of so many channels, tensor by tensor.

    Returns:
        The tensors in torchvision's order as float32, and a note for each dtype that was converted.

    Raises:
        ValueError: a tensor is missing, left over, of another shape or kind, or not finite; names them.
    """
    expected = expected_shapes(arch, channels)
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
    if not isinstance(value, torch.Tensor) or value.is_meta or value.layout != torch.strided:
        return False  # a meta tensor has no values; a sparse one would have to be unpacked
    return value.is_floating_point()


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
