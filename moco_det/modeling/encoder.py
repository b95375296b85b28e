"""The encoders: torchvision's ResNets and the paper's ResNeXts, freshly initialized, and their features."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from moco_det.config.architectures import STAGE_BLOCKS, Arch, parse_arch


def build_resnet(
    name: str,
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    num_classes: int = 1000,
    blocks: tuple[type[BasicBlock], type[Bottleneck]] = (BasicBlock, Bottleneck),
    stride_in_1x1: bool = False,
    stem: str = "imagenet",
    in_channels: int = 3,
) -> ResNet:
    """A freshly initialized torchvision ResNet ending in ``fc``.

    Args:
        stem: one of ``config.architectures.STEMS``.
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
