"""The proof of a converted file: detectron2's ResNet gives the features of the source."""

import os
from collections.abc import Mapping

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import ResNet, build_resnet_backbone
from torch import nn

from moco_det.backbone_file import read_backbone
from moco_det.backbone_tensors import STEP_COUNTER, listed
from moco_det.convert.rename import to_detectron2
from moco_det.encoder import build_resnet, parse_arch

# Largest difference of features, relative to the largest feature, that rounding in float64 can explain.
TOLERANCE = 1e-10


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
    expected = {name for name in model.state_dict() if not name.endswith(STEP_COUNTER)}
    if expected != set(tensors):
        names = sorted(expected ^ set(tensors))
        raise ValueError(
            f"the written names are not those of {type(model).__module__}: {listed('differ', names)}"
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
        raise ValueError(f"the written values are not the source's: {listed('differ', changed)}")


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
