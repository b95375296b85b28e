"""Random textures: two or three colours, mixed by a pattern."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Few colours, as of painted toys: were each image of colours of its own, these alone would tell it from all the
# others, and pre-training would learn nothing else. Hue, saturation and value in [0, 1].
PAINTS = (
    (0.0, 0.8, 0.8),
    (0.1, 0.85, 0.95),
    (0.36, 0.6, 0.6),
    (0.58, 0.7, 0.8),
    (0.0, 0.0, 0.95),
    (0.0, 0.0, 0.2),
)
GROUNDS = ((0.0, 0.0, 0.45), (0.0, 0.0, 0.6), (0.0, 0.0, 0.75), (0.09, 0.25, 0.6))


def random_colour(rng: np.random.Generator, colours: Sequence[Sequence[float]] = PAINTS) -> np.ndarray:
    """One of some colours, a little off; 3, float32 in [0, 1]."""
    hue, saturation, value = colours[rng.integers(len(colours))] + rng.normal(0, (0.01, 0.04, 0.04))
    hsv = hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)
    return np.array(colorsys.hsv_to_rgb(*hsv), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int) -> np.ndarray:
    """Noise with ``cells`` bumps across at the coarsest octave; HxW, float32 in [0, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        side = cells * 2**octave + 1
        grid = Image.fromarray(rng.random((side, side), dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _plane(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two coordinates at right angles, turned at random; HxW each, the longer side is about 1."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    x, y = x * width / max(height, width), y * height / max(height, width)
    along = np.cos(angle) * x + np.sin(angle) * y
    return along.astype(np.float32), (np.cos(angle) * y - np.sin(angle) * x).astype(np.float32)


def _stripes(rng, height, width):
    along, _ = _plane(rng, height, width)
    wave = np.sin(along * rng.uniform(15, 50) + rng.uniform(0, 2 * np.pi))
    return np.clip(wave * rng.uniform(0.7, 4) / 2 + 0.5, 0, 1)


def _dots(rng, height, width):
    along, across = _plane(rng, height, width)
    frequency = rng.uniform(18, 45)
    wave = np.sin(along * frequency) * np.sin(across * frequency)
    return np.clip((wave - rng.uniform(0.0, 0.4)) * 4, 0, 1)


def _checks(rng, height, width):
    along, across = _plane(rng, height, width)
    frequency = rng.uniform(12, 30)
    return np.clip(np.sin(along * frequency) * np.sin(across * frequency) * 4 + 0.5, 0, 1)


def _gradient(rng, height, width):
    return np.clip(_plane(rng, height, width)[0] + 0.5, 0, 1)


def _noise(rng, height, width):
    return smooth_noise(rng, height, width, cells=int(rng.integers(2, 7)), octaves=3)


def _marble(rng, height, width):
    along, _ = _plane(rng, height, width)
    bend = smooth_noise(rng, height, width, cells=3, octaves=2) * rng.uniform(4, 10)
    return np.sin(along * rng.uniform(8, 25) + bend) / 2 + 0.5


def _circles(rng, height, width):
    along, across = _plane(rng, height, width)
    return np.clip(np.sin(np.hypot(along, across) * rng.uniform(25, 60)) * 2 + 0.5, 0, 1)


def _speckles(rng, height, width):
    grains = smooth_noise(rng, height, width, cells=int(rng.integers(14, 24)), octaves=1)
    return np.clip((grains - 0.6) * 8, 0, 1)


PATTERNS = (_stripes, _dots, _checks, _gradient, _noise, _marble, _circles, _speckles)


def random_texture(
    rng: np.random.Generator,
    height: int,
    width: int,
    contrast: float = 1.0,
    pattern: int | None = None,
    colours: Sequence[Sequence[float]] = PAINTS,
) -> np.ndarray:
    """Two colours mixed by a pattern, the second one up to ``contrast``; HxWx3, float32 in [0, 1].

    Args:
        pattern: number in PATTERNS; None draws one.
    """
    number = int(rng.integers(len(PATTERNS))) if pattern is None else pattern
    pattern = PATTERNS[number](rng, height, width)[..., None]
    first, second = random_colour(rng, colours), random_colour(rng, colours)
    return first + (second - first) * (contrast * pattern).astype(np.float32)
