"""The encoders: torchvision's ResNets by name, and the paper's ResNeXts by depth, groups and width."""

import re
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

# Blocks in each of the four stages, by depth (He et al. 2016, Table 1).
STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# "imagenet": 7x7 with stride 2, then a max-pool, a quarter of the side in all. "cifar": 3x3 with stride 1 and no
# max-pool, for images of 32 px (He et al. 2016, section 4.2).
STEMS = ("imagenet", "cifar")
_NAME = re.compile(r"resnet(\d+)|resnext(\d+)_(\d+)x(\d+)d")


class Arch(NamedTuple):
    """A ResNet by its numbers; ``groups`` and ``width_per_group`` as torchvision and detectron2 use them."""

    depth: int
    groups: int = 1
    width_per_group: int = 64

    @property
    def has_bottlenecks(self) -> bool:
        return self.depth >= 50

    @property
    def name(self) -> str:
        if (self.groups, self.width_per_group) == (1, 64):
            return f"resnet{self.depth}"
        return f"resnext{self.depth}_{self.groups}x{self.width_per_group}d"


def parse_arch(name: str) -> Arch:
    """Read an architecture's name, e.g. ``"resnet50"`` or ``"resnext50_32x8d"`` (the paper's RX50).

    Raises:
        ValueError: the name is not one of these forms or its depth is unknown.
    """
    match = _NAME.fullmatch(name)
    arch = None
    if match and match[1]:
        arch = Arch(int(match[1]))
    elif match:
        arch = Arch(int(match[2]), int(match[3]), int(match[4]))
    if arch is None or arch.depth not in STAGE_BLOCKS or (match[2] and not arch.has_bottlenecks):
        raise ValueError(
            f"MODEL.ENCODER.ARCH is {name!r}; expected resnet18, resnet34, resnet50, resnet101, resnet152, "
            "or resnext<50|101|152>_<groups>x<width>d such as resnext50_32x8d"
        )
    return arch


def build_resnet(
    name: str,
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    num_classes: int = 1000,
    blocks: tuple[type[BasicBlock], type[Bottleneck]] = (BasicBlock, Bottleneck),
    stride_in_1x1: bool = False,
    stem: str = "imagenet",
) -> ResNet:
    """A freshly initialised torchvision ResNet ending in ``fc``.

    Args:
        stem: one of ``STEMS``.
        blocks: the classes of its residual blocks.
        stride_in_1x1: torchvision has no network with the stride in the first 1x1 convolution (MSRA's, Caffe's);
            for one, the strides of a bottleneck's first two convolutions change places, and nothing else
            (Detectron's ``bottleneck_transformation``). Basic blocks have no such choice.
    """
    arch = parse_arch(name)
    model = ResNet(
        blocks[arch.has_bottlenecks],
        list(STAGE_BLOCKS[arch.depth]),
        num_classes=num_classes,
        groups=arch.groups,
        width_per_group=arch.width_per_group,
        norm_layer=norm_layer,
    )
    if stride_in_1x1 and arch.has_bottlenecks:
        for stage in (model.layer2, model.layer3, model.layer4):
            one, three = stage[0].conv1, stage[0].conv2
            one.stride, three.stride = three.stride, one.stride
    if stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's
        model.maxpool = nn.Identity()
    return model


def pooled_features(encoder: ResNet, images: Tensor) -> Tensor:
    """Globally average-pooled features before ``fc``: (N, 3, H, W) -> (N, D); D is 512 or 2048."""
    return nn.Sequential(*list(encoder.children())[:-1])(images).flatten(1)


def feature_map(encoder: ResNet, images: Tensor) -> Tensor:
    """The last stage's map: (N, 3, H, W) -> (N, D, H / 32, W / 32), rounded up; D is 512 or 2048."""
    return nn.Sequential(*list(encoder.children())[:-2])(images)
