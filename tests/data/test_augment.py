"""Colors against torchvision on Pillow images, operation by operation; batches against single views."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F

from moco_det.data.augment import (
    BLUR,
    COLUMNS,
    FLIP,
    GRAYSCALE,
    HUE,
    SLOTS,
    SOLARIZE,
    augment,
    box_of_blur,
    hue,
)

V2 = ("jitter", "grayscale", "blur")
BYOL = (*V2, "solarize")
OPERATIONS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def pictures(count: int, side: int = 64) -> list[Image.Image]:
    """Smooth colors with noise, the first of them noise alone, the last two gray and black."""
    rng = np.random.default_rng(0)
    made = [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))]
    while len(made) < count - 2:
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        smooth = np.array(coarse.resize((side, side), Image.BICUBIC)) + rng.normal(0, 6, (side, side, 3))
        made.append(Image.fromarray(smooth.clip(0, 255).astype(np.uint8)))
    return [*made, made[1].convert("L").convert("RGB"), Image.new("RGB", (side, side))]


IMAGES = pictures(10)
VIEWS = torch.stack([F.pil_to_tensor(image) for image in IMAGES])


def rows(count: int = len(IMAGES)) -> np.ndarray:
    """Parameters of views to which nothing happens."""
    table = np.zeros((count, COLUMNS), np.float32)
    table[:, SLOTS] = -1
    return table


def random_rows(count: int, seed: int = 0) -> np.ndarray:
    """Any operations in any order, about half of each."""
    rng, table = np.random.default_rng(seed), rows(count)
    table[:, :HUE] = rng.uniform(0.2, 1.8, (count, 3))
    table[:, HUE] = rng.integers(-51, 52, count)
    for view in np.flatnonzero(rng.random(count) < 0.7):
        table[view, SLOTS] = rng.permutation(4)
    for column in (GRAYSCALE, SOLARIZE, FLIP):
        table[:, column] = rng.random(count) < 0.4
    table[:, BLUR] = np.where(rng.random(count) < 0.5, rng.uniform(0.1, 4, count), 0)
    return table


def differences(table: np.ndarray, expected: list[Image.Image]) -> torch.Tensor:
    """Pixel values by which the views differ from what Pillow made."""
    finished = augment(VIEWS, torch.from_numpy(table), BYOL)
    assert finished.dtype == torch.uint8 and finished.shape == VIEWS.shape
    return (finished.int() - torch.stack([F.pil_to_tensor(image) for image in expected]).int()).abs().float()


@pytest.mark.parametrize("operation", [0, 1, 2], ids=["brightness", "contrast", "saturation"])
def test_levels_are_torchvisions_exactly(operation):
    factors = np.linspace(0, 1.8, len(IMAGES)).astype(np.float32)
    table = rows()
    table[:, operation], table[:, SLOTS.start] = factors, operation
    expected = [OPERATIONS[operation](image, float(f)) for image, f in zip(IMAGES, factors, strict=True)]
    assert not differences(table, expected).any()


def test_grayscale_solarisation_and_flip_are_torchvisions_exactly():
    for column, operation in (
        (GRAYSCALE, lambda image: F.rgb_to_grayscale(image, 3)),
        (SOLARIZE, lambda image: F.solarize(image, 128)),
        (FLIP, F.hflip),
    ):
        table = rows()
        table[:, column] = 1
        assert not differences(table, list(map(operation, IMAGES))).any()


@pytest.mark.parametrize("shift", [-0.5, -0.4, -0.1, -0.03, 0.0, 0.002, 0.05, 0.2, 0.3, 0.5])
def test_hue_is_torchvisions_but_for_one_pixel_in_hundreds(shift):
    """They differ where float32 falls on the other side of one of Pillow's 255 steps: by 6 values at most."""
    table = rows()
    table[:, HUE], table[:, SLOTS.start] = int(shift * 255), HUE
    difference = differences(table, [F.adjust_hue(image, shift) for image in IMAGES])
    pixels = difference.amax(1)
    assert pixels.max() <= 6 and (pixels > 0).float().mean() < 0.01 and (pixels > 1).float().mean() < 0.005


def plain_hue(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """augment.hue, line by line."""
    red, green, blue = x.split(1, dim=1)  # nx1xSxS, as all planes below
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    # The hue in sixths of a turn, counted from the largest channel: red, else green, else blue.
    from_green = torch.where(green == value, 2 * chroma + blue - red, 4 * chroma + red - green)
    turn = torch.where(red == value, green - blue, from_green) / chroma.clamp(min=1)
    level = (42.5 * turn + 255 * (turn < 0)).to(torch.int16)
    sixths = ((level + shift.to(torch.int16)) & 255) * (6 / 255)
    # The range of the channels, from a saturation of 8 bits.
    spread = (255 * chroma / value.clamp(min=1)).floor() * value * (1 / 255)
    highest = value + 0.5

    def share(center: float) -> torch.Tensor:
        """The fraction of the range: 0 within a sixth of this hue, 1 from two sixths on."""
        return ((sixths - center).abs() - 1).clamp(0, 1)

    # Red is lowest around its opposite, cyan; the others are highest around their own hue.
    red = share(3.0) * spread + (highest - spread)
    green, blue = (highest - share(center) * spread for center in (2.0, 4.0))
    return torch.cat((red, green, blue), dim=1).floor()


@pytest.mark.parametrize("shift", [-128, -51, -1, 0, 7, 51, 127])
def test_hue_is_its_plain_form_bit_for_bit(shift):
    """Over a cube of colors, grays and ties among the channels included."""
    levels = torch.cat([torch.arange(0, 256, 5), torch.tensor([1, 127, 254])])
    cube = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).flatten(2)[None].float()
    shifts = torch.full((1, 1, 1, 1), float(shift))
    assert torch.equal(hue(cube.clone(), shifts), plain_hue(cube, shifts))


@pytest.mark.parametrize(
    ("sigma", "mean"),
    [(0.1, 0.3), (0.3, 0.7), (0.7, 0.7), (1.0, 0.7), (1.4, 0.4), (1.6, 0.4), (2.0, 0.4), (5, 0.4)],
)
def test_blur_is_pillows_but_for_its_roundings(sigma, mean):
    """Pillow rounds after each of six passes; the whole view is compared, edges too."""
    table = rows()
    table[:, BLUR] = sigma
    difference = differences(table, [image.filter(ImageFilter.GaussianBlur(sigma)) for image in IMAGES])
    assert difference.max() <= 3 and difference.mean() < mean
    # The comparison sees a sigma that is off by a twentieth.
    if sigma >= 0.7:
        table[:, BLUR] = 1.05 * sigma
        off = differences(table, [image.filter(ImageFilter.GaussianBlur(sigma)) for image in IMAGES])
        assert off.max() > 3 or off.mean() > mean


def test_the_variance_of_the_blur_is_sigmas_square():
    for sigma in (0.2, 0.9, 1.5, 2.0, 3.3):
        half = box_of_blur(sigma)
        assert half[0] + 2 * half[1:].sum() == pytest.approx(1)
        assert 3 * 2 * (half * np.arange(len(half)) ** 2).sum() == pytest.approx(sigma**2)


def test_jitter_follows_the_drawn_order():
    orders = [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)]
    table, expected = rows(), []
    for row, image, order in zip(table, IMAGES, 3 * orders, strict=False):
        row[:4], row[SLOTS] = (1.3, 0.7, 1.4, 25), order
        for operation in order:
            image = OPERATIONS[operation](image, (1.3, 0.7, 1.4, 0.1)[operation])
        expected.append(image)
    difference = differences(table, expected)
    assert difference.mean() < 0.05 and difference.max() <= 12


def test_order_of_the_operations_is_the_recipes():
    table = rows()
    table[:, GRAYSCALE], table[:, 0], table[:, SLOTS.start] = 1, 1.5, 0
    for order, first, second in (
        (("grayscale", "jitter"), lambda i: F.rgb_to_grayscale(i, 3), lambda i: F.adjust_brightness(i, 1.5)),
        (("jitter", "grayscale"), lambda i: F.adjust_brightness(i, 1.5), lambda i: F.rgb_to_grayscale(i, 3)),
    ):
        finished = augment(VIEWS, torch.from_numpy(table), order)
        assert torch.equal(finished, torch.stack([F.pil_to_tensor(second(first(i))) for i in IMAGES]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_batch_is_its_views_one_by_one(layout):
    """Each view has its own operations, so that a number of another view would show."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=generator)
    table = torch.from_numpy(random_rows(24))
    assert len({tuple(row[SLOTS].tolist()) for row in table}) > 5
    together = augment(views.to(memory_format=layout), table, BYOL)
    alone = torch.cat([augment(views[i : i + 1], table[i : i + 1], BYOL) for i in range(24)])
    # Rounding may depend on where a number stands in a vector of the processor.
    assert (together.int() - alone.int()).abs().max() <= 1
    assert (together != alone).float().mean() < 1e-3


def test_what_is_given_stays_as_it_is():
    before, table = VIEWS.clone(), torch.from_numpy(random_rows(len(IMAGES), 1))
    flips = rows()
    flips[::2, FLIP] = 1
    for given in (table, table.new_tensor(flips)):
        augment(VIEWS, given, BYOL)
        assert torch.equal(VIEWS, before)
    assert torch.equal(augment(VIEWS, torch.from_numpy(rows()), BYOL), VIEWS)
