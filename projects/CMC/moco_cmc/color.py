"""Converts 8-bit RGB to a lightness and two color channels, on the device of the images.

Two spaces of the paper (Tian et al. 2019, arXiv 1906.05849, section 4.1): CIE Lab, and YDbDr, linear in RGB.
Channels are scaled to about -1 to 1.

n: images, S: side of a view.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# ITU-R BT.601: the luma of SECAM's YDbDr, and its two color differences.
YDBDR = ((0.299, 0.587, 0.114), (-0.450, -0.883, 1.333), (-1.333, 1.116, 0.217))
# sRGB (IEC 61966-2-1), linear RGB to CIE XYZ, and the white of its illuminant D65.
XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE = (0.95047, 1.0, 1.08883)


class Range(NamedTuple):
    """Smallest and largest value of each channel over all 8-bit RGB colors."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


RANGES = {
    "lab": Range((0.0, -86.183, -107.857), (100.0, 98.233, 94.478)),
    "ydbdr": Range((0.0, -1.333, -1.333), (1.0, 1.333, 1.333)),
}


def lab(images: Tensor) -> Tensor:
    """CIE Lab under D65, from sRGB: float (n, 3, S, S) from 0 to 1 -> L 0 to 100, a, b."""
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    xyz = _mixed(linear, XYZ) / images.new_tensor(WHITE).view(3, 1, 1)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def ydbdr(images: Tensor) -> Tensor:
    """Luma and color differences: float (n, 3, S, S) from 0 to 1 -> Y 0 to 1, Db, Dr."""
    return _mixed(images, YDBDR)


def _mixed(images: Tensor, matrix) -> Tensor:
    return torch.einsum("oc,nchw->nohw", images.new_tensor(matrix), images)


SPACES = {"lab": lab, "ydbdr": ydbdr}


def split_channels(images: Tensor, space: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The two views of CMC: uint8 RGB (n, 3, S, S) -> lightness (n, 1, S, S) and color (n, 2, S, S), scaled.

    Args:
        space: "lab" or "ydbdr".
    """
    channels = SPACES[space](images.to(dtype) / 255)  # nx3xSxS
    low, high = (channels.new_tensor(values).view(3, 1, 1) for values in RANGES[space])
    scaled = (channels - (high + low) / 2) / ((high - low) / 2)
    return scaled[:, :1], scaled[:, 1:]
