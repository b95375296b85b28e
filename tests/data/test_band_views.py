"""Views of many channels: those of RGB for the first three, those of a gray image for each other."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F

from moco_det.data.augment import BLUR, COLUMNS, DROPPED, FLIP, GRAYSCALE, HUE, SLOTS, SOLARIZE, augment
from moco_det.data.image_format import ImageFormat
from moco_det.data.views import ViewSettings, apply_view, center_view, crop_view, draw_view, whole_view

BYOL = ("jitter", "grayscale", "blur", "solarize")
VIEWS = torch.randint(0, 256, (12, 6, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
VIEWS[:, :, :12] //= 2  # so that means and colors differ
VIEWS[:, 4] //= 3


def random_rows(count=12, blur=True):
    """Any operations in any order."""
    rng, table = np.random.default_rng(3), np.zeros((count, COLUMNS), np.float32)
    table[:, :HUE] = rng.uniform(0.2, 1.8, (count, 3))
    table[:, HUE] = rng.integers(-51, 52, count)
    table[:, SLOTS] = -1
    for view in range(count - 2):
        table[view, SLOTS] = rng.permutation(4)
    for column in (GRAYSCALE, SOLARIZE, FLIP):
        table[:, column] = rng.random(count) < 0.4
    if blur:
        table[:, BLUR] = np.where(rng.random(count) < 0.5, rng.uniform(0.3, 3, count), 0)
    return table


def gray_by_torchvision(channel, row):
    """What happens to a channel that is a gray image of its own, operation by operation in Pillow."""
    image = Image.fromarray(channel.numpy())
    for operation in row[SLOTS].astype(int):
        if operation in (0, 1):
            image = (F.adjust_brightness, F.adjust_contrast)[operation](image, float(row[operation]))
    if row[BLUR]:
        image = image.filter(ImageFilter.GaussianBlur(float(row[BLUR])))
    image = F.solarize(image, 128) if row[SOLARIZE] else image
    return F.pil_to_tensor(F.hflip(image) if row[FLIP] else image)[0]


def test_the_first_three_are_rgb_and_the_others_gray():
    table = random_rows(blur=False)
    found = augment(VIEWS, torch.from_numpy(table), BYOL)
    assert torch.equal(found[:, :3], augment(VIEWS[:, :3], torch.from_numpy(table), BYOL))
    for view, row, finished in zip(VIEWS, table, found, strict=True):
        for channel in (3, 4, 5):
            assert torch.equal(finished[channel], gray_by_torchvision(view[channel], row))
    assert not torch.equal(found, VIEWS)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_without_colors_each_channel_is_gray(channels):
    table = random_rows(blur=False)
    views = VIEWS[:, :channels].contiguous()
    found = augment(views, torch.from_numpy(table), BYOL, has_colors=False)
    for view, row, finished in zip(views, table, found, strict=True):
        for channel in range(channels):
            assert torch.equal(finished[channel], gray_by_torchvision(view[channel], row))


def test_blur_is_that_of_each_channel():
    table = random_rows()
    found = augment(VIEWS, torch.from_numpy(table), ("blur",))
    for channel in range(6):
        alone = augment(VIEWS[:, channel : channel + 1], torch.from_numpy(table), ("blur",), has_colors=False)
        assert (found[:, channel : channel + 1].int() - alone.int()).abs().max() <= 1


def test_what_is_given_stays_as_it_is():
    before = VIEWS.clone()
    for has_colors in (True, False):
        augment(VIEWS, torch.from_numpy(random_rows()), BYOL, has_colors=has_colors)
        assert torch.equal(VIEWS, before)


def test_a_dropped_channel_is_its_mean():
    table = np.zeros((len(VIEWS), COLUMNS), np.float32)
    table[:, SLOTS] = -1
    table[0, DROPPED], table[3, DROPPED] = 0b100101, 0b010
    found = augment(VIEWS, torch.from_numpy(table), BYOL)
    for view, channels in ((0, (0, 2, 5)), (3, (1,))):
        for channel in range(6):
            if channel in channels:
                mean = VIEWS[view, channel].float().mean()
                assert (found[view, channel] == torch.floor(mean + 0.5)).all()
            else:
                assert torch.equal(found[view, channel], VIEWS[view, channel])
    assert torch.equal(found[[1, 2, 4]], VIEWS[[1, 2, 4]])


def test_draws_of_the_dropout():
    plain = ViewSettings("v2", 16, (0.2, 1.0), image_format=ImageFormat(4))
    dropping = dataclasses.replace(plain, channel_dropout=0.6)
    counts = []
    for seed in range(300):
        without, drawn = (draw_view(np.random.default_rng(seed), 30, 20, s) for s in (plain, dropping))
        assert dataclasses.replace(drawn, dropped=()) == without and without.dropped == ()
        assert set(drawn.dropped) < set(range(4))
        counts.append(len(drawn.dropped))
    # Binomial with 4 x 0.6, but for four, which become three.
    assert np.mean(counts) == pytest.approx(4 * 0.6 - 0.6**4, abs=0.15)
    with pytest.raises(ValueError, match="INPUT.VIEWS.CHANNEL_DROPOUT is 1"):
        dataclasses.replace(plain, channel_dropout=1.0)


def test_draws_are_those_of_rgb():
    of_rgb, of_four = (ViewSettings("v2", 16, (0.2, 1.0), image_format=ImageFormat(c)) for c in (3, 4))
    for seed in range(50):
        assert draw_view(np.random.default_rng(seed), 30, 20, of_rgb) == draw_view(
            np.random.default_rng(seed), 30, 20, of_four
        )


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_geometry_is_the_same_for_all_channels(channels):
    pixels, settings = VIEWS[0], ViewSettings("crop_flip", 9, (0.2, 1.0))
    for seed in range(20):
        drawn = draw_view(np.random.default_rng(seed), 24, 24, settings)
        found = crop_view(pixels[:channels].contiguous(), drawn)
        for channel in range(channels):
            alone = crop_view(pixels[channel].expand(3, -1, -1).contiguous(), drawn)[0]
            assert (found[channel].int() - alone.int()).abs().max() <= 1
        flipped = apply_view(pixels[:channels].contiguous(), drawn)
        assert torch.equal(flipped, found.flip(-1) if drawn.flip else found)


@pytest.mark.parametrize("view", [center_view, whole_view])
def test_views_of_evaluation_are_pillows(view):
    pixels = torch.randint(0, 256, (5, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = view(pixels, 16)
    rgb = view(Image.fromarray(pixels[:3].permute(1, 2, 0).numpy()), 16)
    assert found.shape == (5, 16, 16) and torch.equal(found[:3], rgb)
    assert torch.equal(found[4:], view(Image.fromarray(pixels[4].numpy()), 16))
