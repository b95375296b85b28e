"""The encoders: torchvision's ResNets by name, and the paper's ResNeXts by depth, groups and width."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

# Blocks in each of the four stages, by depth (He et al. 2016, Table 1).
STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# "imagenet": 7x7 with stride 2, then a max-pool, a quarter of the side in all. "cifar": 3x3 with stride 1 and no
# max-pool, for images of 32 px (He et al. 2016, section 4.2).
STEMS = ("imagenet", "cifar")
# What an architecture may be called, in words.
ARCHS = (
    "resnet18, resnet34, resnet50, resnet101, resnet152, or resnext<50|101|152>_<groups>x<width>d such as "
    "resnext50_32x8d; other widths end in _stem<channels>_out<channels>"
)
_NAME = re.compile(r"(?:resnet(\d+)|resnext(\d+)_(\d+)x(\d+)d)(?:_stem(\d+)_out(\d+))?")


class Arch(NamedTuple):
    """A ResNet by its numbers, which are those of detectron2's config.

    Attributes:
        depth, groups, width_per_group: as torchvision and detectron2 use them.
        stem_channels: STEM_OUT_CHANNELS, the first convolution's output.
        out_channels: RES2_OUT_CHANNELS, the first stage's output; 0 means the usual one. Each further stage
            doubles it.
    """

    depth: int
    groups: int = 1
    width_per_group: int = 64
    stem_channels: int = 64
    out_channels: int = 0

    @property
    def has_bottlenecks(self) -> bool:
        return self.depth >= 50

    @property
    def res2_channels(self) -> int:
        return self.out_channels or (256 if self.has_bottlenecks else 64)

    @property
    def has_usual_widths(self) -> bool:
        """Whether only torchvision's own arguments are needed to build it."""
        return self.stem_channels == 64 and self.res2_channels == self._replace(out_channels=0).res2_channels

    @property
    def name(self) -> str:
        plain = (self.groups, self.width_per_group) == (1, 64)
        kind = (
            f"resnet{self.depth}" if plain else f"resnext{self.depth}_{self.groups}x{self.width_per_group}d"
        )
        return kind if self.has_usual_widths else f"{kind}_stem{self.stem_channels}_out{self.res2_channels}"


def parse_arch(name: str) -> Arch:
    """Read an architecture's name, e.g. ``"resnet50"`` or ``"resnext50_32x8d"`` (the paper's RX50).

    ``"resnext50_1x32d_stem32_out128"`` is a ResNet-50 of half the width.

    Raises:
        ValueError: the name is not one of these forms or its depth is unknown.
    """
    match = _NAME.fullmatch(name)
    arch = None
    if match:
        numbers = [int(match[1]), 1, 64] if match[1] else [int(match[n]) for n in (2, 3, 4)]
        arch = Arch(*numbers, *(int(match[n]) for n in (5, 6) if match[n]))
    known = arch is not None and arch.depth in STAGE_BLOCKS
    # detectron2 builds basic blocks of one width alone; bottlenecks have four times the planes of torchvision.
    fits = known and (not (match[2] or arch.res2_channels != 64) or arch.has_bottlenecks)
    if not fits or 0 in (arch.groups, arch.width_per_group, arch.stem_channels) or arch.res2_channels % 4:
        raise ValueError(f"MODEL.ENCODER.ARCH is {name!r}; expected {ARCHS}")
    return arch


def build_resnet(
    name: str,
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    num_classes: int = 1000,
    blocks: tuple[type[BasicBlock], type[Bottleneck]] = (BasicBlock, Bottleneck),
    stride_in_1x1: bool = False,
    stem: str = "imagenet",
    in_channels: int = 3,
) -> ResNet:
    """A freshly initialised torchvision ResNet ending in ``fc``.

    Args:
        stem: one of ``STEMS``.
        blocks: the classes of its residual blocks.
        stride_in_1x1: torchvision has no network with the stride in the first 1x1 convolution (MSRA's, Caffe's);
            for one, the strides of a bottleneck's first two convolutions change places, and nothing else
            (Detectron's ``bottleneck_transformation``). Basic blocks have no such choice.
        in_channels: of the images.
    """
    arch = parse_arch(name)
    block = blocks[arch.has_bottlenecks]
    model = ResNet(
        block,
        list(STAGE_BLOCKS[arch.depth]),
        num_classes=num_classes,
        groups=arch.groups,
        width_per_group=arch.width_per_group,
        norm_layer=norm_layer,
    )
    if not arch.has_usual_widths:
        _set_widths(model, arch, block, norm_layer)
    if stride_in_1x1 and arch.has_bottlenecks:
        for stage in (model.layer2, model.layer3, model.layer4):
            one, three = stage[0].conv1, stage[0].conv2
            one.stride, three.stride = three.stride, one.stride
    if stem == "cifar":
        model.conv1 = nn.Conv2d(in_channels, arch.stem_channels, 3, stride=1, padding=1, bias=False)
        model.maxpool = nn.Identity()
    elif in_channels != 3 or arch.stem_channels != 64:
        model.conv1 = nn.Conv2d(in_channels, arch.stem_channels, 7, stride=2, padding=3, bias=False)
    if model.conv1.weight.shape != (64, 3, 7, 7):
        _init_as_torchvision(model.conv1)
    return model


def _set_widths(
    model: ResNet, arch: Arch, block: type[BasicBlock | Bottleneck], norm_layer: Callable[[int], nn.Module]
) -> None:
    """Give a ResNet, all but its first convolution, widths that torchvision's constructor has no argument for."""
    model.bn1, inputs = norm_layer(arch.stem_channels), arch.stem_channels
    for stage, count in enumerate(STAGE_BLOCKS[arch.depth]):
        outputs = arch.res2_channels * 2**stage
        planes = outputs // block.expansion
        # torchvision has int(planes * (base_width / 64)) channels per group; a step up, rounding loses none.
        base_width = math.nextafter(arch.width_per_group * 2**stage * 64 / planes, math.inf)
        options = {"norm_layer": norm_layer}
        if arch.has_bottlenecks:
            options |= {"groups": arch.groups, "base_width": base_width}
        stride, layers = 1 if stage == 0 else 2, []
        for number in range(count):
            shortcut = None
            if number == 0 and (stride != 1 or inputs != outputs):
                shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm_layer(outputs)
                )
            layers.append(block(inputs, planes, 1 if number else stride, shortcut, **options))
            inputs = outputs
        setattr(model, f"layer{stage + 1}", nn.Sequential(*layers))
    model.fc = nn.Linear(inputs, model.fc.out_features)
    for module in model.modules():
        _init_as_torchvision(module)


def _init_as_torchvision(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def pooled_features(encoder: ResNet, images: Tensor) -> Tensor:
    """Globally average-pooled features before ``fc``: (N, 3, H, W) -> (N, D); D is 512 or 2048."""
    return nn.Sequential(*list(encoder.children())[:-1])(images).flatten(1)


def feature_map(encoder: ResNet, images: Tensor) -> Tensor:
    """The last stage's map: (N, 3, H, W) -> (N, D, H / 32, W / 32), rounded up; D is 512 or 2048."""
    return nn.Sequential(*list(encoder.children())[:-2])(images)


def stage_features(encoder: ResNet, images: Tensor) -> dict[str, Tensor]:
    """The map of each stage, by detectron2's names: ``res2`` has a quarter of the side, ``res5`` a 32nd."""
    x = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(images))))  # N x C x H/4 x W/4
    features = {}
    for stage in range(1, 5):
        x = getattr(encoder, f"layer{stage}")(x)
        features[f"res{stage + 1}"] = x
    return features


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two maps, relative to the largest value that is expected."""
    scale = max(expected.abs().max().item(), torch.finfo(torch.float64).tiny)
    return (found - expected).abs().max().item() / scale
