"""Procedural art: individuals of drawn kinds on textured grounds, nothing read from disk."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from moco_det.data.datasets.toy_classes import TOY_CLASSES
from moco_det.toyworld.art import Background, Sprite
from moco_det.toyworld.kinds import DARK, KINDS, LIGHT, MAIN, SECOND, Draw, Part
from moco_det.toyworld.textures import PATTERNS, Material, color, random_color, smooth_noise
from moco_det.utils.seeding import numpy_generator

# Masks are drawn this many times larger and averaged down.
SUPERSAMPLE = 3
# Sub-kinds of each kind.
SPECIES = 12


class ProceduralArt:
    """Individuals of :data:`TOY_CLASSES`; train and test show the same sub-kinds in other individuals.

    Args:
        seed: of the sub-kinds: their proportions, patterns and paints.
    """

    classes = TOY_CLASSES

    def __init__(self, seed: int = 0):
        assert tuple(KINDS) == TOY_CLASSES
        self._seed = seed

    def sprite(self, rng: np.random.Generator, category: str, side: float) -> Sprite:
        """An individual of one of the kind's sub-kinds, in some pose and seen from somewhere."""
        number = int(rng.integers(SPECIES))
        species = numpy_generator(self._seed, f"toyworld species {category}", number)
        parts = KINDS[category](Draw(species, rng))
        paints = _paints(numpy_generator(self._seed, f"toyworld paints {category}", number), rng)
        return Sprite(category, _draw(parts, paints, _view(rng), side, rng))

    def background(self, rng: np.random.Generator, size: int) -> Background:
        """Two surfaces with uneven light, and clutter of which no piece is one of the classes."""
        rgb = _ground(rng, size)
        border = smooth_noise(rng, size, size, cells=2, octaves=3) * 0.6
        border += np.linspace(0, 1, size, dtype=np.float32)[:, None] * rng.uniform(-1, 1)  # maybe a horizon
        other = np.clip((border - np.quantile(border[::8, ::8], rng.uniform(0.2, 0.8))) * 12 + 0.5, 0, 1)[
            ..., None
        ]
        rgb += (_ground(rng, size) - rgb) * other
        rgb *= 0.85 + 0.3 * smooth_noise(rng, size, size, cells=2, octaves=4)[..., None]
        canvas = Image.fromarray((np.clip(rgb, 0, 1) * 255).astype(np.uint8))
        _draw_clutter(rng, canvas)
        # Slightly out of focus, as what lies behind the object of a photograph.
        canvas = canvas.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 1.5) * size / 128))
        return Background(np.asarray(canvas, dtype=np.float32))


def _paints(species: np.random.Generator, rng: np.random.Generator) -> dict[str, Material]:
    """What the parts of an individual wear; its sub-kind's paints, a little off."""
    found = {}
    for wears, (low, high) in (
        (MAIN, (0.35, 0.95)),
        (SECOND, (0.35, 0.95)),
        (DARK, (0.08, 0.28)),
        (LIGHT, (0.8, 1.0)),
    ):
        colors = []
        for _ in range(2):
            hue, saturation, value = species.random(), species.uniform(0.1, 0.9), species.uniform(low, high)
            if wears in (DARK, LIGHT):
                saturation *= 0.4
            colors.append(
                color(
                    hue + rng.normal() * 0.03, saturation + rng.normal() * 0.05, value + rng.normal() * 0.05
                )
            )
        names = list(PATTERNS) if wears in (MAIN, SECOND) else ["plain"]
        pattern = names[species.integers(len(names))]
        repeats, angle = species.uniform(2.0, 6.0), species.choice((0.0, np.pi / 2, np.pi / 4))
        found[wears] = Material(
            colors[0], colors[1], pattern, float(repeats * rng.uniform(0.92, 1.08)), float(angle)
        )
    return found


def _view(rng: np.random.Generator) -> np.ndarray:
    """The view of an individual, as a matrix (2x2): mirrored, turned, shortened along one direction."""
    mirror = np.diag([rng.choice((-1.0, 1.0)), 1.0])
    axis, angle = rng.uniform(0, np.pi), rng.normal() * 0.25
    direction = np.array([np.cos(axis), np.sin(axis)])
    squeeze = np.eye(2) - rng.uniform(0, 0.3) * np.outer(direction, direction)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return mirror @ squeeze @ turn


def _draw(
    parts: list[Part], paints: dict[str, Material], view: np.ndarray, side: float, rng: np.random.Generator
):
    """The parts, back to front, as H x W x 4, uint8, the longer side ``side`` pixels."""
    outlines = [part.outline @ view for part in parts]
    everything = np.concatenate(outlines)
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = side / (high - low).max()
    width, height = (max(1, int(np.ceil(s))) for s in (high - low) * scale)
    rgb, alpha = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    back = np.linalg.inv(view).astype(np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9)
    light = np.array([np.sin(angle), np.cos(angle)], np.float32) * strength
    radius = side * 0.035
    for part, outline in zip(parts, outlines, strict=True):
        points = (outline - low) * scale
        x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, (width, height))
        if x1 <= x0 or y1 <= y0:
            continue
        mask = _mask(points - (x0, y0), x1 - x0, y1 - y0)
        x, y = np.meshgrid(np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32))
        x, y = x / np.float32(scale) + np.float32(low[0]), y / np.float32(scale) + np.float32(low[1])
        paint = paints[part.wears].at(x * back[0, 0] + y * back[1, 0], x * back[0, 1] + y * back[1, 1])
        cover = np.asarray(mask, dtype=np.float32) / 255
        if min(mask.size) > 4:  # the part is round, and lit from one side
            raised = np.asarray(mask.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32) / 255
            slope_y, slope_x = np.gradient(raised)
            paint = paint * (0.95 + radius * (light[0] * slope_y + light[1] * slope_x))[..., None]
        there = (slice(y0, y1), slice(x0, x1))
        rgb[there] += (paint - rgb[there]) * cover[..., None]
        alpha[there] = np.maximum(alpha[there], cover)
    return np.dstack([np.clip(rgb, 0, 1) * 255, alpha * 255]).astype(np.uint8)


def _mask(points: np.ndarray, width: int, height: int) -> Image.Image:
    """How much of each pixel a polygon (Nx2, pixels) covers; mode "L"."""
    canvas = Image.new("L", (width * SUPERSAMPLE, height * SUPERSAMPLE))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in (points * SUPERSAMPLE).tolist()], fill=255)
    return canvas.reduce(SUPERSAMPLE)


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A surface of two like colors; S x S x 3, float32 in [0, 1]."""
    first, second = random_color(rng), random_color(rng)
    noise = smooth_noise(rng, size, size, cells=int(rng.integers(4, 20)), octaves=3)
    return first + (second - first) * (rng.uniform(0.2, 0.5) * noise)[..., None].astype(np.float32)


def _draw_clutter(rng: np.random.Generator, canvas: Image.Image) -> None:
    """Draw up to eight sticks and crumpled patches; none looks like one of the kinds."""
    pen, size = ImageDraw.Draw(canvas), canvas.width
    for _ in range(rng.integers(0, 5)):
        fill = tuple(
            (color(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.1, 1)) * 255).astype(int).tolist()
        )
        center = rng.uniform(0, size, 2)
        if rng.random() < 0.6:
            angle, half = rng.uniform(0, np.pi), rng.uniform(0.05, 0.4) * size
            reach = half * np.array([np.cos(angle), np.sin(angle)])
            ends = [*(center - reach).tolist(), *(center + reach).tolist()]
            pen.line(ends, fill=fill, width=int(rng.integers(1, max(2, size // 30) + 1)))
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, 11))
            radii = rng.uniform(0.02, 0.08, 11) * size
            points = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            pen.polygon([tuple(point) for point in points.tolist()], fill=fill)
