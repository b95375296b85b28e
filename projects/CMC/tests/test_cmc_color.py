"""Color conversion against published values and a scalar computation from the standards."""

import pytest
import torch

from moco_cmc.color import RANGES, SPACES, split_channels


def pixel(space, *rgb):
    image = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1) / 255
    return SPACES[space](image).flatten().tolist()


# sRGB's primaries and white in CIE Lab, D65, as tables of color science list them.
@pytest.mark.parametrize(
    "rgb, expected",
    [
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
    ],
)
def test_lab_has_the_published_values(rgb, expected):
    assert pixel("lab", *rgb) == pytest.approx(expected, abs=0.02)


def lab_by_hand(red, green, blue):
    linear = []
    for value in (red / 255, green / 255, blue / 255):
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    r, g, b = linear
    x = (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047
    y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
    z = (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883
    fx, fy, fz = (v ** (1 / 3) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def test_lab_equals_the_scalar_computation_also_in_the_dark():
    generator = torch.Generator().manual_seed(0)
    colors = torch.cat([torch.randint(0, high, (50, 3), generator=generator) for high in (256, 30, 4)])
    for rgb in colors.tolist():
        assert pixel("lab", *rgb) == pytest.approx(lab_by_hand(*rgb), abs=1e-9)


def test_ydbdr_of_gray_has_no_color_and_its_primaries_are_the_matrix():
    for gray in (0, 77, 255):
        assert pixel("ydbdr", gray, gray, gray) == pytest.approx((gray / 255, 0, 0), abs=1e-9)
    assert pixel("ydbdr", 0, 0, 255) == pytest.approx((0.114, 1.333, 0.217))
    assert pixel("ydbdr", 255, 0, 0) == pytest.approx((0.299, -0.450, -1.333))


@pytest.mark.parametrize("space", RANGES)
def test_channels_fill_minus_one_to_one(space):
    levels = torch.tensor([0, 85, 170, 255], dtype=torch.uint8)
    colors = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 8, 8)
    lightness, color = split_channels(colors, space)
    assert lightness.shape == (1, 1, 8, 8) and color.shape == (1, 2, 8, 8)
    for channel in (lightness[:, 0], *color.unbind(1)):
        assert float(channel.min()) == pytest.approx(-1, abs=1e-3)
        assert float(channel.max()) == pytest.approx(1, abs=1e-3)
