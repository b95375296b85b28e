"""2,000 views against 2,000 of the official augmentation: two-sample tests of what can be measured on them.

The official one is written with torchvision's own transforms from its description: the order, probabilities and
ranges of main_moco.py (facebookresearch/moco at 3b42c2a), without and with --aug-plus.
"""

import dataclasses
import functools
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.stats import ks_2samp
from torchvision import transforms as T

from moco_det.data import augment, views
from moco_det.data.decoding import to_pixels
from moco_det.data.views import ViewSettings, crop_view
from moco_det.testing.planted import planted

VIEWS, WIDTH, HEIGHT, SIZE, SCALE = 2_000, 200, 150, 48, (0.2, 1.0)


def gaussian_blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=np.random.uniform(0.1, 2.0)))


CROP = T.RandomResizedCrop(SIZE, scale=SCALE)
OFFICIAL = {
    "v1": [
        CROP,
        T.RandomGrayscale(p=0.2),
        T.ColorJitter(0.4, 0.4, 0.4, 0.4),
        T.RandomHorizontalFlip(),
    ],
    "v2": [
        CROP,
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([gaussian_blur], p=0.5),
        T.RandomHorizontalFlip(),
    ],
}


def colored_picture() -> Image.Image:
    """Blue, which any hue is brighter than when it is made gray; brighter to the right, with fine noise."""
    ramp = np.linspace(0.5, 0.65, WIDTH)[None, :, None] * np.array([50, 70, 200])
    noise = np.random.default_rng(0).normal(0, 15, (HEIGHT, WIDTH, 1))
    return Image.fromarray((ramp + noise).clip(0, 255).astype(np.uint8))


def map_picture() -> Image.Image:
    """Red is the column and green the row, so the corners of a crop can be read off."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8))


def statistics_of_crops(crops: np.ndarray) -> dict[str, np.ndarray]:
    """The places of crops of the map, uint8 (n, 3, S, S), from lines fitted to its columns and rows."""
    from_center = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    columns, rows = crops[:, 0].mean(1), crops[:, 1].mean(2)  # nxS
    slope = from_center / (from_center**2).sum()
    width, height, x, y = columns @ slope, rows @ slope, columns.mean(1), rows.mean(1)
    return {
        "area": width * height,
        "aspect": width / height,
        "horizontal position": (x - width / 2) / (WIDTH + 1 - width),
        "vertical position": (y - height / 2) / (HEIGHT + 1 - height),
    }


def statistics_of_views(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What can be seen of views of the colored picture, uint8 (n, 3, S, S)."""
    red, green, blue = pixels.astype(float).transpose(1, 0, 2, 3)  # nxSxS
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    value = pixels.max(1).astype(float)  # does not depend on the hue
    chroma = value - pixels.min(1)
    gray = chroma.max((1, 2)) == 0
    hue = np.arctan2(np.sqrt(3) * (green - blue).sum((1, 2)), (2 * red - green - blue).sum((1, 2)))
    contrast = value.std((1, 2))
    edges = np.abs(np.diff(value, axis=1)).mean((1, 2)) + np.abs(np.diff(value, axis=2)).mean((1, 2))
    half = SIZE // 2
    return {
        "brightness": value.mean((1, 2)),
        "contrast": contrast,
        "saturation": (chroma / value.clip(1)).mean((1, 2)),
        "hue": hue[~gray],
        "gray": gray.astype(float),
        "brightness of gray views": luma[gray].mean((1, 2)),  # tells whether the jitter came before
        "sharpness": edges / contrast,
        "flip": (value[..., half:].mean((1, 2)) > value[..., :half].mean((1, 2))).astype(float),
    }


def official_statistics(recipe: str) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    np.random.seed(0)
    whole = T.Compose([*OFFICIAL[recipe], T.PILToTensor()])
    crop = T.Compose([CROP, T.PILToTensor()])
    finished, crops = (
        torch.stack([transform(picture) for _ in range(VIEWS)]).numpy()
        for transform, picture in ((whole, colored_picture()), (crop, map_picture()))
    )
    return statistics_of_crops(crops) | statistics_of_views(finished)


def our_statistics(recipe: str) -> dict[str, np.ndarray]:
    rng, settings = np.random.default_rng(0), ViewSettings(recipe, SIZE, SCALE)
    drawn = [views.draw_view(rng, WIDTH, HEIGHT, settings) for _ in range(VIEWS)]
    crops, colored = (
        torch.stack([crop_view(pixels, parameters) for parameters in drawn])
        for pixels in (to_pixels(map_picture()), to_pixels(colored_picture()))
    )
    rows = torch.tensor([parameters.photometric_row() for parameters in drawn])
    finished = augment.augment(colored, rows, settings.operations(0))
    return statistics_of_crops(crops.numpy()) | statistics_of_views(finished.numpy())


@functools.cache
def official(recipe: str) -> dict[str, np.ndarray]:
    return official_statistics(recipe)


def p_values(recipe: str) -> dict[str, float]:
    ours, theirs = our_statistics(recipe), official(recipe)
    assert all(np.isfinite(sample).all() for sample in [*ours.values(), *theirs.values()])
    return {name: ks_2samp(ours[name], theirs[name]).pvalue for name in theirs}


# One test in a hundred would fail for a correct augmentation, were the seeds not fixed: 0.01 over all comparisons.
TESTS = 2 * 12
THRESHOLD = 0.01 / TESTS


@pytest.mark.parametrize("recipe", OFFICIAL)
def test_views_are_distributed_as_the_official_ones(recipe):
    found = p_values(recipe)
    print(f"{recipe}: smallest p {min(found.values()):.3f} of", {n: f"{p:.3f}" for n, p in found.items()})
    assert len(found) * len(OFFICIAL) == TESTS
    assert min(found.values()) >= THRESHOLD


# ---- Planted bugs ----------------------------------------------------------------------------------


def with_photometric(recipe: str, **changes):
    """The recipe with other values of its ``Photometric``, in both views."""
    wrong = tuple(dataclasses.replace(photometric, **changes) for photometric in views.RECIPES[recipe])
    return mock.patch.dict(views.RECIPES, {recipe: wrong})


BUGS = {
    "jitter always": ("v2", with_photometric("v2", jitter_probability=1.0)),
    "jitter of v1 as rare as v2's": ("v1", with_photometric("v1", jitter_probability=0.8)),
    "hue of v2 as strong as v1's": ("v2", with_photometric("v2", jitter=(0.4, 0.4, 0.4, 0.4))),
    "hue of v1 as weak as v2's": ("v1", with_photometric("v1", jitter=(0.4, 0.4, 0.4, 0.1))),
    "brightness stronger by a half": ("v1", with_photometric("v1", jitter=(0.6, 0.4, 0.4, 0.4))),
    "no contrast": ("v2", with_photometric("v2", jitter=(0.4, 0.0, 0.4, 0.1))),
    "no saturation": ("v2", with_photometric("v2", jitter=(0.4, 0.4, 0.0, 0.1))),
    "gray too rarely": ("v2", with_photometric("v2", grayscale_probability=0.1)),
    "v1: jitter before gray": ("v1", with_photometric("v1", operations=("jitter", "grayscale"))),
    "v2: gray before jitter": ("v2", with_photometric("v2", operations=("grayscale", "jitter", "blur"))),
    "no blur": ("v2", with_photometric("v2", operations=("jitter", "grayscale"))),
    "blur always": ("v2", with_photometric("v2", blur_probability=1.0)),
    "blur of up to 1 pixel": ("v2", planted(views, "draw_view", "*settings.blur_sigma", "0.1, 1.0")),
    "crops of ImageNet's usual scale": ("v1", planted(views, "_draw_crop", "*crop_scale", "0.08, 1.0")),
    "square crops": ("v2", planted(views, "_draw_crop", "math.exp(rng.uniform(*log_ratio))", "1.0")),
    "crops at the left": ("v1", planted(views, "_draw_crop", "int(rng.integers(width - w + 1))", "0")),
    "crops at the top": ("v1", planted(views, "_draw_crop", "int(rng.integers(height - h + 1))", "0")),
    "flips too rare": ("v1", mock.patch.object(views, "FLIP_PROBABILITY", 0.4)),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_comparison_catches_a_planted_bug(bug):
    recipe, planting = BUGS[bug]
    with planting:
        found = p_values(recipe)
    print("caught:", {name: f"{p:.0e}" for name, p in found.items() if p < THRESHOLD})
    assert min(found.values()) < THRESHOLD
