"""Procedural art: drawn silhouettes and textured backgrounds, nothing read from disk."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from moco_det.toy_classes import TOY_CLASSES
from moco_det.toyworld.art import Background, Sprite
from moco_det.toyworld.shapes import shape_mask
from moco_det.toyworld.textures import GROUNDS, random_colour, random_texture, smooth_noise

# How often an object wears the texture of its class: things of one kind look alike in more than their outline,
# and not always. Class c has pattern c.
TYPICAL = 0.8


class ProceduralArt:
    """Silhouettes of :data:`TOY_CLASSES` on textures; train and test differ by their random draws alone."""

    classes = TOY_CLASSES

    def sprite(self, rng: np.random.Generator, category: str, side: float) -> Sprite:
        """A silhouette under a random light, mostly in the texture of its class, in any two paints."""
        mask = shape_mask(rng, category, side)
        typical = self.classes.index(category) if rng.random() < TYPICAL else None
        texture = random_texture(rng, mask.height, mask.width, pattern=typical)
        rgb = np.clip(texture * _relief(rng, mask)[..., None], 0, 1) * 255
        return Sprite(category, np.dstack([rgb, np.asarray(mask)]).astype(np.uint8))

    def background(self, rng: np.random.Generator, size: int) -> Background:
        """A texture with uneven light, and clutter of which no piece is one of the classes."""
        # Fainter and less colourful than the sprites, which otherwise drown in it.
        contrast = rng.uniform(0.2, 0.7)
        rgb = random_texture(rng, size, size, contrast, colours=GROUNDS)
        if rng.random() < 0.5:  # two surfaces with a soft, irregular border
            border = smooth_noise(rng, size, size, cells=2, octaves=3)
            other = np.clip((border - rng.uniform(0.35, 0.65)) * 12 + 0.5, 0, 1)[..., None]
            rgb += (random_texture(rng, size, size, contrast, colours=GROUNDS) - rgb) * other
        rgb *= 0.6 + 0.6 * smooth_noise(rng, size, size, cells=2, octaves=4)[..., None]
        canvas = Image.fromarray((np.clip(rgb, 0, 1) * 255).astype(np.uint8))
        _draw_clutter(rng, canvas)
        # Slightly out of focus, as what lies behind the object of a photograph.
        canvas = canvas.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 1.2) * size / 128))
        return Background(np.asarray(canvas, dtype=np.float32))


def _relief(rng: np.random.Generator, mask: Image.Image) -> np.ndarray:
    """Brightness of a rounded body with this silhouette, lit from one side; HxW, about 1."""
    radius = max(mask.size) * rng.uniform(0.04, 0.12)
    height = np.asarray(mask.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255
    slope_y, slope_x = np.gradient(height)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.2)
    return 0.95 + strength * radius * (np.cos(angle) * slope_x + np.sin(angle) * slope_y)


def _draw_clutter(rng: np.random.Generator, canvas: Image.Image) -> None:
    """Draw up to eight sticks and crumpled patches; both look like none of the silhouettes."""
    pen, size = ImageDraw.Draw(canvas), canvas.width
    for _ in range(rng.integers(0, 9)):
        colour = tuple((random_colour(rng) * 255).astype(int).tolist())
        centre = rng.uniform(0, size, 2)
        if rng.random() < 0.6:
            angle, half = rng.uniform(0, np.pi), rng.uniform(0.05, 0.4) * size
            reach = half * np.array([np.cos(angle), np.sin(angle)])
            ends = [*(centre - reach).tolist(), *(centre + reach).tolist()]
            pen.line(ends, fill=colour, width=int(rng.integers(1, max(2, size // 30) + 1)))
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, 11))
            radii = rng.uniform(0.02, 0.08, 11) * size
            points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            pen.polygon([tuple(point) for point in points.tolist()], fill=colour)
