"""Random textures: colors, mixed by a pattern."""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

# What lies behind the objects: meadow, water and sky, sand, stone. Hue, saturation and value in [0, 1]. They are
# few: were each image of colors of its own, these alone would tell it from all the others, and pre-training would
# learn nothing else.
GROUNDS = ((0.27, 0.45, 0.5), (0.57, 0.35, 0.75), (0.11, 0.3, 0.75), (0.1, 0.05, 0.55))


def color(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB of a color, the hue taken modulo 1, the others cut to [0, 1]; 3, float32 in [0, 1]."""
    hsv = hue % 1, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    return np.array(colorsys.hsv_to_rgb(*hsv), dtype=np.float32)


def random_color(rng: np.random.Generator, colors: Sequence[Sequence[float]] = GROUNDS) -> np.ndarray:
    """One of some colors (hue, saturation, value), a little off; 3, float32 in [0, 1]."""
    return color(*(colors[rng.integers(len(colors))] + rng.normal(0, (0.01, 0.03, 0.03))))


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int) -> np.ndarray:
    """Noise with ``cells`` bumps across at the coarsest octave; HxW, float32 in [0, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        side = cells * 2**octave + 1
        grid = Image.fromarray(rng.random((side, side), dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


# Each maps coordinates u, v (HxW, about -1 to 1) and a number of repeats across to values from 0 to 1.
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "plain": lambda u, v, n: np.zeros_like(u),
    "stripes": lambda u, v, n: np.sin(u * n * 3) * 2 + 0.5,
    "dots": lambda u, v, n: (np.sin(u * n * 3) * np.sin(v * n * 3) - 0.25) * 4,
    "checks": lambda u, v, n: np.sin(u * n * 2) * np.sin(v * n * 2) * 5 + 0.5,
    "shade": lambda u, v, n: u * 0.8 + 0.5,
    "rings": lambda u, v, n: np.sin(np.hypot(u, v) * n * 4) * 2 + 0.5,
    "waves": lambda u, v, n: np.sin(u * n * 3 + 1.5 * np.sin(v * n * 2)) * 2 + 0.5,
    "rays": lambda u, v, n: np.sin(np.arctan2(v, u) * round(n)) * 2 + 0.5,
    "scales": lambda u, v, n: np.abs(np.sin(u * n * 2.5 + (np.floor(v * n * 1.6) % 2) * 1.57))
    * ((v * n * 1.6) % 1),
    "band": lambda u, v, n: (0.22 - np.abs(v)) * 12 + 0.5,
}


@dataclass(frozen=True)
class Material:
    """What a part of an object wears: two colors (each 3, float32 in [0, 1]), and the pattern that mixes them.

    Attributes:
        pattern: a name of PATTERNS.
        repeats: how often the pattern repeats across the object.
        angle: of the pattern on the object, in radians.
    """

    first: np.ndarray
    second: np.ndarray
    pattern: str
    repeats: float
    angle: float

    def at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The colors at coordinates of the object (HxW each); HxWx3, float32 in [0, 1]."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        mix = PATTERNS[self.pattern](cos * u + sin * v, cos * v - sin * u, self.repeats)
        return self.first + (self.second - self.first) * np.clip(mix, 0, 1)[..., None].astype(np.float32)
