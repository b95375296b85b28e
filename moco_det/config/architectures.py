"""What encoders are called: torchvision's ResNets by name, and the paper's ResNeXts by depth, groups and width."""

import re
from typing import NamedTuple

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
