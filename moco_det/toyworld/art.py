"""What a scene is made of, and how the two kinds of art are told apart from the scenes."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

# A pixel belongs to an object when at least half of it is covered.
OPAQUE = 128


@dataclass(frozen=True)
class Sprite:
    """One object, drawn at its final size and orientation.

    Attributes:
        category: the class.
        rgba: H x W x 4, uint8, colors not premultiplied.
        source: the cut-out's path below the folder of cut-outs; empty when it was drawn.
    """

    category: str
    rgba: np.ndarray
    source: str = ""

    @property
    def mask(self) -> np.ndarray:
        """H x W, bool: the object's pixels."""
        return self.rgba[..., 3] >= OPAQUE


@dataclass(frozen=True)
class Background:
    """What lies behind the objects: ``rgb`` H x W x 3, in [0, 255]; ``source`` as in a sprite."""

    rgb: np.ndarray
    source: str = ""


class Art(Protocol):
    """Draws the parts of scenes. Every draw comes from the generator it is given."""

    classes: tuple[str, ...]

    def sprite(self, rng: np.random.Generator, category: str, side: float) -> Sprite:
        """An object of a class whose longer side is about ``side`` pixels."""

    def background(self, rng: np.random.Generator, size: int) -> Background:
        """A background of ``size`` x ``size`` pixels, float32."""
