"""The silhouettes of the procedural classes, and how one becomes an antialiased mask."""

import numpy as np
from PIL import Image, ImageDraw

from moco_det.toy_classes import TOY_CLASSES

# The mask is drawn this many times larger and averaged down.
SUPERSAMPLE = 4
_CIRCLE_POINTS = 48


def _arc(start: float, stop: float, radius: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Points of a circle around (shift, 0), from one angle to another (radians). Nx2."""
    angles = np.linspace(start, stop, _CIRCLE_POINTS)
    return np.stack([shift + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _regular(radii: list[float]) -> np.ndarray:
    """Points at equal angles and the given distances from the centre. Nx2."""
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cross(arm: float) -> np.ndarray:
    quarter = np.array([[arm, arm], [arm, 1.0], [-arm, 1.0]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])  # a quarter turn, applied to row vectors
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _crescent(radius: float, shift: float) -> np.ndarray:
    """The unit disc without a disc of ``radius`` around (shift, 0)."""
    tip = np.arccos(
        (1 + shift**2 - radius**2) / (2 * shift)
    )  # where the two circles meet, seen from the origin
    inner_tip = np.arctan2(np.sin(tip), np.cos(tip) - shift)  # the same point, seen from (shift, 0)
    return np.concatenate(
        [_arc(tip, 2 * np.pi - tip), _arc(2 * np.pi - inner_tip, inner_tip, radius=radius, shift=shift)]
    )


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, _CIRCLE_POINTS, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1) / 17


def _outline(rng: np.random.Generator, category: str) -> list[np.ndarray]:
    """The outer line of a shape and, for the ring, the line of its hole; each Nx2, about the origin."""
    circle = _arc(0, 2 * np.pi)
    draw = {
        "disc": lambda: [circle],
        "ring": lambda: [circle, circle * rng.uniform(0.45, 0.65)],
        "square": lambda: [_regular([1.0] * 4)],
        "triangle": lambda: [_regular([1.0] * 3)],
        "star": lambda: [_regular([1.0, rng.uniform(0.38, 0.5)] * 5)],
        "cross": lambda: [_cross(rng.uniform(0.26, 0.38))],
        "crescent": lambda: [_crescent(rng.uniform(0.8, 0.95), rng.uniform(0.45, 0.65))],
        "heart": lambda: [_heart()],
    }
    assert tuple(draw) == TOY_CLASSES
    return draw[category]()


def shape_mask(rng: np.random.Generator, category: str, side: float) -> Image.Image:
    """A silhouette, turned and squeezed at random, whose longer side is ``side`` pixels.

    Returns:
        mode "L": how much of each pixel the shape covers; no empty margin wider than a pixel.
    """
    angle, axis = rng.uniform(0, 2 * np.pi, 2)
    direction = np.array([np.cos(axis), np.sin(axis)])
    # Along one random direction the shape is up to a quarter shorter, as if seen from the side.
    squeeze = np.eye(2) - rng.uniform(0, 0.25) * np.outer(direction, direction)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    lines = [line @ rotation @ squeeze for line in _outline(rng, category)]

    low, high = lines[0].min(axis=0), lines[0].max(axis=0)
    scale = side * SUPERSAMPLE / (high - low).max()
    width, height = (int(np.ceil(s / SUPERSAMPLE)) * SUPERSAMPLE for s in (high - low) * scale)
    canvas = Image.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    for line, ink in zip(lines, (255, 0), strict=False):
        pen.polygon([tuple(point) for point in ((line - low) * scale).tolist()], fill=ink)
    return canvas.reduce(SUPERSAMPLE)
