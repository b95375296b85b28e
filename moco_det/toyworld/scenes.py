"""One scene: its pixels, and the truth about each object in it. Knows neither files nor layouts."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from moco_det.toyworld.art import Art, Background, Sprite

# No object shows less than this fraction of its pixels: the others or the border would hide what it is.
MIN_VISIBLE = 0.4
# The object in front shows more, so that no layout marks it as difficult and every metric counts it.
MIN_VISIBLE_FRONT = 0.6
# Places tried for an object before the scene goes without it.
TRIES = 20


class Recipe(NamedTuple):
    """What kind of scene to compose.

    Attributes:
        count: smallest and largest number of objects.
        side: smallest and largest length of an object's longer side, as a fraction of the image's side.
        overhang: largest fraction of a sprite's width or height that may lie beyond the border.
    """

    count: tuple[int, int]
    side: tuple[float, float]
    overhang: float


# As in ImageNet the object fills the picture: else two views agree in their background alone.
ONE_LARGE = Recipe(count=(1, 1), side=(0.8, 1.05), overhang=0.1)
SEVERAL = Recipe(count=(1, 3), side=(0.4, 0.8), overhang=0.2)


@dataclass(frozen=True)
class SceneObject:
    """An object in its place.

    Attributes:
        sprite: what was pasted.
        left, top: where the sprite's first column and row lie in the image, in pixels; may be negative.
        visible: S x S, bool: the object's pixels that neither another object nor the border hides.
    """

    sprite: Sprite
    left: int
    top: int
    visible: np.ndarray

    @property
    def category(self) -> str:
        return self.sprite.category

    @property
    def silhouette(self) -> np.ndarray:
        """S x S, bool: the object's pixels within the image, also those that another object hides."""
        shown = np.zeros_like(self.visible)
        inside, of_sprite = _overlap(self.top, self.left, self.sprite.mask.shape, len(shown))
        shown[inside] = self.sprite.mask[of_sprite]
        return shown

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) around the visible pixels, in pixels; x1 and y1 are exclusive."""
        columns, rows = np.flatnonzero(self.visible.any(axis=0)), np.flatnonzero(self.visible.any(axis=1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @property
    def visible_share(self) -> float:
        """Visible pixels over the pixels of the whole sprite, in [0, 1]."""
        return float(self.visible.sum() / self.sprite.mask.sum())


@dataclass(frozen=True)
class Scene:
    """A rendered scene: ``image`` S x S x 3, uint8, RGB; ``objects`` from front to back."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    background_source: str = ""


def compose(rng: np.random.Generator, art: Art, size: int, recipe: Recipe, first: str | None = None) -> Scene:
    """Compose and render a scene.

    Args:
        rng: the source of every draw.
        art: draws sprites and backgrounds.
        size: side of the image, in pixels.
        recipe: how many objects, and how large.
        first: class of the object in front, which is always there; None draws one.
    """
    background = art.background(rng, size)
    count = int(rng.integers(recipe.count[0], recipe.count[1] + 1))
    categories = [art.classes[i] for i in rng.integers(len(art.classes), size=count)]
    if first is not None:
        categories[0] = first
    objects, taken = [], np.zeros((size, size), dtype=bool)
    for category in categories:
        sprite = art.sprite(rng, category, size * rng.uniform(*recipe.side))
        least = MIN_VISIBLE if objects else MIN_VISIBLE_FRONT
        placed = _place(rng, sprite, taken, recipe.overhang, least)
        if placed is not None:
            objects.append(placed)
            taken |= placed.visible
    assert objects and objects[0].category == categories[0], "the object in front found no place"
    return Scene(_render(rng, background, objects), tuple(objects), background.source)


def _place(
    rng: np.random.Generator, sprite: Sprite, taken: np.ndarray, overhang: float, least: float
) -> SceneObject | None:
    """Put a sprite behind those that already lie there; None when no place tried shows the ``least`` share."""
    mask, size = sprite.mask, len(taken)
    extent = np.array(mask.shape)
    low, high = -overhang * extent, size - (1 - overhang) * extent
    for _ in range(TRIES):
        top, left = np.round(rng.uniform(low, high)).astype(int).tolist()
        inside, of_sprite = _overlap(top, left, mask.shape, size)
        visible = np.zeros_like(taken)
        visible[inside] = mask[of_sprite] & ~taken[inside]
        if visible.sum() >= least * mask.sum():
            return SceneObject(sprite, left, top, visible)
    return None


def _overlap(top: int, left: int, shape: tuple[int, ...], size: int) -> tuple[tuple, tuple]:
    """Index of the part of the image that a rectangle covers, and of the rectangle's part in the image."""
    height, width = shape
    y0, y1 = max(top, 0), min(top + height, size)
    x0, x1 = max(left, 0), min(left + width, size)
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _render(rng: np.random.Generator, background: Background, objects: list[SceneObject]) -> np.ndarray:
    """Paste from back to front, each object with its shadow, and take the photograph. S x S x 3, uint8."""
    canvas = background.rgb.copy()
    size = len(canvas)
    shadow_shift = rng.uniform(-0.03, 0.03, 2) * size
    shadow_depth = rng.uniform(0.1, 0.5)
    for placed in reversed(objects):
        alpha = np.zeros((size, size), dtype=np.float32)
        inside, of_sprite = _overlap(placed.top, placed.left, placed.sprite.rgba.shape[:2], size)
        rgba = placed.sprite.rgba[of_sprite].astype(np.float32)
        alpha[inside] = rgba[..., 3] / 255
        canvas *= 1 - shadow_depth * _shadow(alpha, shadow_shift)[..., None]
        region = canvas[inside]
        region += (rgba[..., :3] - region) * alpha[inside][..., None]
    # The camera: exposure, and noise of the sensor.
    canvas *= rng.uniform(0.8, 1.2)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * 3
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _shadow(alpha: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The silhouette, moved by ``shift`` pixels (rows, columns) and blurred; S x S, float32 in [0, 1]."""
    moved = np.roll(alpha, np.round(shift).astype(int).tolist(), axis=(0, 1))
    blurred = Image.fromarray((moved * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(len(alpha) * 0.03))
    return np.asarray(blurred, dtype=np.float32) / 255
