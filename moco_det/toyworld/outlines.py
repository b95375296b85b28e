"""Outlines of parts, as points in the unit frame of an object: x to the right, y down, both about -1 to 1."""

import numpy as np


def ellipse(x: float, y: float, rx: float, ry: float, points: int = 28) -> np.ndarray:
    """An ellipse around (x, y) with the half axes rx and ry; Nx2."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """An upright rectangle; 4x2."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def polygon(*points: tuple[float, float]) -> np.ndarray:
    """Corners as given; Nx2."""
    return np.array(points, dtype=float)


def rounded(points: np.ndarray, rounds: int = 2) -> np.ndarray:
    """The closed line with its corners cut off ``rounds`` times (Chaikin's algorithm); (N * 2**rounds)x2."""
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1)
        points = points.reshape(-1, 2)
    return points


def stroke(points: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """The outline of a line of some width (one number, or one a point) through the points; 2Nx2."""
    along = np.gradient(points, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    half = (np.broadcast_to(width, len(points)) / 2)[:, None]
    return np.concatenate([points + normal * half, (points - normal * half)[::-1]])


def line(x0: float, y0: float, x1: float, y1: float, width: float) -> np.ndarray:
    """A straight stroke; 4x2."""
    return stroke(polygon((x0, y0), (x1, y1)), width)


def spiral(turns: float, start: float, end: float, points: int = 40) -> np.ndarray:
    """Points of a spiral around the origin from radius ``start`` to ``end``; Nx2."""
    t = np.linspace(0, 1, points)
    radius = start + (end - start) * t
    return radius[:, None] * np.stack([np.cos(2 * np.pi * turns * t), np.sin(2 * np.pi * turns * t)], axis=1)


def wavy(x: float, y: float, radius: float, lobes: int, depth: float, points: int = 60) -> np.ndarray:
    """A circle whose radius swings ``lobes`` times by the fraction ``depth``; Nx2."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    r = radius * (1 + depth * np.cos(lobes * t))
    return np.stack([x + r * np.cos(t), y + r * np.sin(t)], axis=1)


def mirrored(points: np.ndarray) -> np.ndarray:
    """The same at the other side of the y axis; Nx2."""
    return points * (-1, 1)


def turned(points: np.ndarray, angle: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Turned by ``angle`` radians about (x, y); Nx2."""
    cos, sin = np.cos(angle), np.sin(angle)
    return (points - (x, y)) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
