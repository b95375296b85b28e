"""The proof of a converted file: the network that will load it gives the features of the source.

A file under detectron2's names is loaded into detectron2's ResNet and compared with torchvision's on the source's
tensors; a file under torchvision's names the other way round. So each proof has two implementations in it.
"""

import os
from collections.abc import Mapping

import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import ResNet, build_resnet_backbone
from torch import nn

from moco_det.config.overlays import architecture_keys
from moco_det.modeling.encoder import build_resnet, difference, stage_features
from moco_det.weights.backbone_tensors import STEP_COUNTER, in_channels, listed
from moco_det.weights.resnet_names import to_detectron2
from moco_det.weights.sources import read_checkpoint

# Largest difference of features, relative to the largest feature, that rounding in float64 can explain.
TOLERANCE = 1e-10


def prove_equal_features(
    written: str | os.PathLike, tensors: Mapping[str, torch.Tensor], arch: str, stride_in_1x1: bool = False
) -> dict[str, float]:
    """Compare the networks of the written file and of the source, in float64.

    The values are compared too, bit by bit: a branch that batch norm scales by zero leaves no trace in the
    features.

    Args:
        written: the converted file as it lies on disk.
        tensors: the source's tensors, float32, under torchvision's names.
        arch: the architecture's name.
        stride_in_1x1: whether the source's bottlenecks have their stride in the first 1x1 (MSRA).

    Returns:
        Stage -> largest difference of its features, relative to its largest feature.

    Raises:
        ValueError: names, values or features differ.
    """
    found, stride_of_file = _read_written(written)
    theirs = {to_detectron2(name): tensor for name, tensor in tensors.items()}
    for_detectron2 = any(name.startswith("stem.") for name in found)
    images = _images(in_channels(tensors))
    if for_detectron2:
        reference = _torchvision_features(images, tensors, arch, stride_in_1x1)
        features = _detectron2_features(images, found, arch, stride_of_file)
    else:
        reference = _detectron2_features(images, theirs, arch, stride_in_1x1)
        features = _torchvision_features(images, found, arch, stride_of_file)
    differences = {stage: difference(features[stage], reference[stage]) for stage in reference}
    wrong = {stage: f"{value:.1e}" for stage, value in differences.items() if not value <= TOLERANCE}
    if wrong:
        owner = "detectron2" if for_detectron2 else "torchvision"
        raise ValueError(
            f"{owner}'s features differ from the source's: {wrong}, relative; at most {TOLERANCE:.0e} is "
            "rounding. Nothing was written: the names, the stride convention or the values do not fit"
        )
    expected = theirs if for_detectron2 else tensors
    changed = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    if changed:
        plain = {there: here for here, there in zip(tensors, expected, strict=True)}
        names = [plain[name] for name in changed]
        raise ValueError(f"the written values are not the source's: {listed('differ', names)}")
    return differences


def _read_written(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], bool]:
    """Read the written file: its tensors without step counters, and where it says that the stride is."""
    content = read_checkpoint(path)
    states = content.get("model", content.get("state_dict", content))
    record = content.get("moco_det", {}).get("preprocessing", {})
    tensors = {n: torch.as_tensor(value) for n, value in states.items() if not n.endswith(STEP_COUNTER)}
    return tensors, bool(record.get("stride_in_1x1", False))


def detectron2_resnet(arch: str, stride_in_1x1: bool, channels: int = 3) -> ResNet:
    """detectron2's own ResNet of this architecture with trainable batch norm, on the meta device."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.merge_from_list([word for pair in architecture_keys(arch).items() for word in pair])
    with torch.device("meta"):
        return build_resnet_backbone(cfg, ShapeSpec(channels=channels))


def torchvision_resnet(arch: str, stride_in_1x1: bool, channels: int = 3) -> nn.Module:
    """torchvision's ResNet without classifier, on the meta device."""
    with torch.device("meta"):
        model = build_resnet(arch, stride_in_1x1=stride_in_1x1, in_channels=channels)
    model.fc = nn.Identity()
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


def _images(channels: int) -> torch.Tensor:
    """Two, so that nothing can depend on the batch; 64 pixels leave 2x2 positions in res5."""
    return torch.randn(2, channels, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _detectron2_features(
    images: torch.Tensor, tensors: Mapping, arch: str, stride_in_1x1: bool
) -> dict[str, torch.Tensor]:
    model = detectron2_resnet(arch, stride_in_1x1, images.shape[1])
    _load_exactly(model, tensors)
    return model(images)


@torch.no_grad()
def _torchvision_features(
    images: torch.Tensor, tensors: Mapping, arch: str, stride_in_1x1: bool
) -> dict[str, torch.Tensor]:
    model = torchvision_resnet(arch, stride_in_1x1, images.shape[1])
    _load_exactly(model, tensors)
    return stage_features(model, images)
