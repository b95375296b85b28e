"""Two checks before a converted file may exist: every tensor accounted for, and equal features after."""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import ResNet, build_resnet_backbone
from torch import nn

from moco_det.backbone_file import read_backbone
from moco_det.convert.rename import to_detectron2
from moco_det.encoder import STAGE_BLOCKS, build_resnet, parse_arch

# Largest difference of features, relative to the largest feature, that rounding in float64 can explain.
TOLERANCE = 1e-10
_STEP_COUNTER = "num_batches_tracked"

# ---- Every tensor accounted for ------------------------------------------------------------------


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


def expected_shapes(arch: str) -> dict[str, torch.Size]:
    """Names and shapes of the backbone's tensors (265 for resnet50), without head and step counters."""
    with torch.device("meta"):
        states = build_resnet(arch).state_dict()
    return {
        name: value.shape
        for name, value in states.items()
        if not name.startswith("fc.") and not name.endswith(_STEP_COUNTER)
    }


def check_backbone(values: Mapping[str, Any], arch: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Compare a backbone with its architecture, tensor by tensor.

    Returns:
        The tensors in torchvision's order as float32, and a note for each dtype that was converted.

    Raises:
        ValueError: a tensor is missing, left over, of another shape or kind, or not finite; names them.
    """
    expected = expected_shapes(arch)
    common = [name for name in expected if name in values]
    strange = [name for name in common if not _is_real(values[name])]
    real = {name: torch.as_tensor(values[name]).detach() for name in common if name not in strange}
    fitting = {name: tensor for name, tensor in real.items() if tensor.shape == expected[name]}
    tensors = {name: tensor.float().contiguous() for name, tensor in fitting.items()}
    problems = {
        "missing": [name for name in expected if name not in values],
        "left over": [name for name in values if name not in expected],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name])}"
            for name, tensor in real.items()
            if name not in fitting
        ],
        "no floating-point tensors": strange,
        "not finite in float32 (did the training diverge?)": [
            name for name, tensor in tensors.items() if not tensor.isfinite().all()
        ],
    }
    found = [_list(problem, names) for problem, names in problems.items() if names]
    if found:
        raise ValueError(
            f"the backbone is no intact {arch}: {'; '.join(found)}. Nothing was written: "
            "convert a complete checkpoint of a plain ResNet"
        )
    return tensors, _dtype_notes(fitting)


def _is_real(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype in (np.float16, np.float32, np.float64)  # native byte order, as torch needs it
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _list(problem: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {problem}: {', '.join(names[:3])}{more}"


def _dtype_notes(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()]
    return [
        f"{dtypes.count(dtype)} tensors were {dtype} and are now float32"
        for dtype in sorted(set(dtypes) - {"float32"})
    ]


# ---- Equal features before and after ---------------------------------------------------------------


def prove_equal_features(
    written: str | os.PathLike, tensors: Mapping[str, torch.Tensor], arch: str
) -> dict[str, float]:
    """Compare detectron2's ResNet on the written file with torchvision's on the source tensors, in float64.

    The values are compared too, bit by bit: a branch that batch norm scales by zero leaves no trace in the
    features.

    Args:
        written: backbone.pkl as it lies on disk.
        tensors: torchvision's names and float32 tensors.
        arch: the architecture's name.

    Returns:
        Stage -> largest difference of its features, relative to its largest feature.

    Raises:
        ValueError: names, values or features differ.
    """
    file = read_backbone(written)
    before = _torchvision_resnet(tensors, arch)
    after = detectron2_resnet(arch, file.preprocessing.stride_in_1x1)
    _load_exactly(after, {name: torch.from_numpy(array) for name, array in file.tensors.items()})
    # Two images, so that nothing can depend on the batch; 64 pixels leave 2x2 positions in res5.
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference, features = _torchvision_features(before, images), after(images)
    differences = {stage: _difference(features[stage], reference[stage]) for stage in reference}
    wrong = {stage: f"{value:.1e}" for stage, value in differences.items() if not value <= TOLERANCE}
    if wrong:
        raise ValueError(
            f"detectron2's features differ from the source's: {wrong}, relative; at most {TOLERANCE:.0e} is "
            "rounding. Nothing was written: the names, the stride convention or the values do not fit"
        )
    _refuse_changed_values(tensors, file.tensors)
    return differences


def detectron2_resnet(arch: str, stride_in_1x1: bool) -> ResNet:
    """detectron2's own ResNet of this architecture with trainable batch norm, on the meta device."""
    depth, groups, width = parse_arch(arch)
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.NUM_GROUPS = groups
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = width
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 256 if depth >= 50 else 64
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    with torch.device("meta"):
        return build_resnet_backbone(cfg, ShapeSpec(channels=3))


def _torchvision_resnet(tensors: Mapping[str, torch.Tensor], arch: str) -> nn.Module:
    with torch.device("meta"):
        model = build_resnet(arch)
    model.fc = nn.Identity()
    _load_exactly(model, tensors)
    return model


def _load_exactly(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give ``model`` the tensors in float64 and evaluation mode; every name must have its equal."""
    expected = {name for name in model.state_dict() if not name.endswith(_STEP_COUNTER)}
    if expected != set(tensors):
        names = sorted(expected ^ set(tensors))
        raise ValueError(
            f"the written names are not those of {type(model).__module__}: {_list('differ', names)}"
        )
    model.load_state_dict(
        {name: tensor.double() for name, tensor in tensors.items()}, assign=True, strict=False
    )
    model.eval()


def _refuse_changed_values(tensors: Mapping[str, torch.Tensor], written: Mapping[str, np.ndarray]) -> None:
    changed = [
        name for name, value in tensors.items() if not np.array_equal(value, written[to_detectron2(name)])
    ]
    if changed:
        raise ValueError(f"the written values are not the source's: {_list('differ', changed)}")


def _torchvision_features(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))  # N x 64 x 16 x 16
    features = {}
    for stage in range(1, 5):
        x = getattr(model, f"layer{stage}")(x)
        features[f"res{stage + 1}"] = x
    return features


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    scale = max(expected.abs().max().item(), torch.finfo(torch.float64).tiny)
    return (found - expected).abs().max().item() / scale
