"""The kinds of the procedural world and how each is built from parts.

A kind (bird, car, mushroom, …) is a body plan. Its sub-kinds differ as species do: in proportions, in the number
of their parts, in patterns and paints. Two individuals of one sub-kind differ a little, as two sparrows do. So
what tells individuals apart over many images, parts and their arrangement, also tells the kinds.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moco_det.toyworld.outlines import (
    box,
    ellipse,
    line,
    mirrored,
    polygon,
    rounded,
    spiral,
    stroke,
    turned,
    wavy,
)

# Which of an individual's paints and patterns a part wears: its own main and second one, dark or light details.
MAIN, SECOND, DARK, LIGHT = "main", "second", "dark", "light"


class Part(NamedTuple):
    """One part of an object: its outline (Nx2, unit frame) and what it wears."""

    outline: np.ndarray
    wears: str = MAIN


class Draw:
    """The proportions of an individual: those of its sub-kind, each a little off.

    Args:
        species: generator of the sub-kind; the same draws for all its individuals.
        individual: generator of the object.
    """

    def __init__(self, species: np.random.Generator, individual: np.random.Generator):
        self._species, self._individual = species, individual

    def __call__(self, low: float, high: float) -> float:
        """A length or an angle of the sub-kind between ``low`` and ``high``."""
        return self._species.uniform(low, high) + self._individual.normal() * 0.06 * (high - low)

    def count(self, low: int, high: int) -> int:
        """A number of parts, from ``low`` to ``high``."""
        return int(self._species.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Whether the sub-kind has something."""
        return bool(self._species.random() < probability)

    def pose(self, low: float, high: float) -> float:
        """What differs between two moments of one individual."""
        return self._individual.uniform(low, high)


def bird(d: Draw) -> list[Part]:
    length, height, head, neck = d(0.55, 0.8), d(0.28, 0.45), d(0.17, 0.28), d(0.05, 0.45)
    beak, tail, spread, leg = d(0.12, 0.45), d(0.25, 0.7), d(0.08, 0.3), d(0.15, 0.6)
    hx, hy = length * 0.85, -height * 0.5 - neck
    parts = [
        Part(line(x, height * 0.6, x + d.pose(-0.1, 0.1), height * 0.8 + leg, 0.06), DARK)
        for x in (-0.1, 0.12)
    ]
    ends = polygon(
        (-length * 0.7, -0.1),
        (-length - tail, -spread - 0.1),
        (-length - tail, spread - 0.1),
        (-length * 0.6, 0.1),
    )
    parts.append(Part(ends, SECOND))
    parts.append(
        Part(
            rounded(
                polygon(
                    (length * 0.45, 0.1),
                    (length * 0.4, -height * 0.6),
                    (hx - head * 0.8, hy),
                    (hx + head * 0.5, hy),
                    (length * 0.95, 0.0),
                )
            )
        )
    )
    parts += [Part(ellipse(0, 0, length, height)), Part(ellipse(hx, hy, head, head * 0.9))]
    parts.append(
        Part(
            polygon(
                (hx + head * 0.7, hy - head * 0.35),
                (hx + head + beak, hy + d(0.0, 0.15)),
                (hx + head * 0.7, hy + head * 0.4),
            ),
            LIGHT,
        )
    )
    lift = d.pose(-0.5, 0.7)
    wing = rounded(
        polygon((0.35, -0.1), (0.0, -height * 0.7), (-0.55 - d(0.0, 0.4), -0.1), (-0.1, height * 0.5))
    )
    parts.append(Part(turned(wing, lift, 0.3, -0.1), SECOND))
    if d.chance(0.4):
        crest = d(0.1, 0.3)
        parts.append(
            Part(
                polygon(
                    (hx - head * 0.5, hy - head * 0.6),
                    (hx - head, hy - head - crest),
                    (hx + head * 0.3, hy - head * 0.8),
                ),
                SECOND,
            )
        )
    parts.append(Part(ellipse(hx + head * 0.35, hy - head * 0.2, 0.05, 0.05, 10), DARK))
    return parts


def fish(d: Draw) -> list[Part]:
    length, height, tail, fin = d(0.6, 0.85), d(0.25, 0.6), d(0.25, 0.5), d(0.15, 0.5)
    fork, back = d(0.2, 0.6), d(-0.3, 0.3)
    sway = d.pose(-0.15, 0.15)
    body = rounded(
        polygon(
            (length, 0.0),
            (length * 0.5, -height),
            (-length * 0.3, -height * 0.8),
            (-length, -0.08),
            (-length, 0.08),
            (-length * 0.3, height * 0.8),
            (length * 0.5, height),
        )
    )
    parts = [
        Part(
            polygon(
                (-length * 0.85, 0),
                (-length - tail, -fork + sway),
                (-length - tail * (1 - d(0.1, 0.7)), sway),
                (-length - tail, fork + sway),
            ),
            SECOND,
        )
    ]
    parts.append(
        Part(
            polygon(
                (back + 0.3, -height * 0.6),
                (back - 0.1, -height * 0.7 - fin),
                (back - 0.35, -height * 0.5 - fin * d(0.2, 1.0)),
                (back - 0.3, -height * 0.4),
            ),
            SECOND,
        )
    )
    if d.chance(0.7):
        low = d(0.1, 0.4)
        parts.append(
            Part(polygon((0.2, height * 0.6), (-0.1, height * 0.7 + low), (-0.3, height * 0.4)), SECOND)
        )
    parts.append(Part(body))
    parts.append(
        Part(turned(polygon((0.2, 0.05), (-0.2, 0.0), (-0.15, 0.25)), d.pose(-0.4, 0.4), 0.2, 0.05), SECOND)
    )
    parts += [
        Part(ellipse(length * 0.55, -height * 0.25, 0.1, 0.1, 14), LIGHT),
        Part(ellipse(length * 0.57, -height * 0.25, 0.05, 0.05, 10), DARK),
    ]
    return parts


def butterfly(d: Draw) -> list[Part]:
    upper, lower, spread, tip = d(0.6, 1.0), d(0.35, 0.75), d(0.3, 0.75), d(-0.3, 0.2)
    fold = d.pose(0.55, 1.0)
    tail = d(0.2, 0.6) if d.chance(0.35) else 0.0
    front = rounded(
        polygon(
            (0, -0.1), (upper * 0.7, -spread - 0.2), (upper, -spread + tip), (upper * 0.8, 0.05), (0, 0.1)
        )
    )
    hind = rounded(polygon((0, 0.0), (lower, 0.05), (lower * 0.95, 0.5), (lower * 0.5, 0.6 + tail), (0, 0.3)))
    spot = ellipse(upper * 0.66, -spread * 0.6, d(0.06, 0.2), d(0.06, 0.2), 16)
    parts = []
    for points, wears in ((hind, SECOND), (front, MAIN), (spot, LIGHT)):
        points = points * (fold, 1)
        parts += [Part(points, wears), Part(mirrored(points), wears)]
    for side in (-1, 1):
        parts.append(
            Part(
                stroke(np.array([[0, -0.3], [side * 0.12, -0.55], [side * d(0.15, 0.35), -0.75]]), 0.04), DARK
            )
        )
    parts += [Part(ellipse(0, 0.05, d(0.06, 0.11), 0.42, 20), DARK)]
    return parts


def beetle(d: Draw) -> list[Part]:
    width, length, head, legs = d(0.35, 0.62), d(0.55, 0.8), d(0.16, 0.3), d(0.3, 0.6)
    parts = []
    for y in (-0.3, 0.05, 0.4):
        for side in (-1, 1):
            bend = y + d.pose(-0.12, 0.12)
            leg = np.array(
                [
                    [0.0, y],
                    [side * (width + legs * 0.5), bend - 0.08],
                    [side * (width + legs), bend + 0.2 * np.sign(y + 0.1)],
                ]
            )
            parts.append(Part(stroke(leg, 0.07), DARK))
    if d.chance(0.5):
        horn = d(0.2, 0.5)
        for side in (-1, 1):
            parts.append(
                Part(
                    stroke(
                        np.array(
                            [
                                [side * 0.08, -length],
                                [side * 0.25, -length - horn * 0.6],
                                [side * 0.1, -length - horn],
                            ]
                        ),
                        0.07,
                    ),
                    DARK,
                )
            )
    parts += [
        Part(ellipse(0, -length * 0.95, head, head * 0.8, 20), SECOND),
        Part(ellipse(0, -length * 0.6, width * 0.85, length * 0.3, 24), SECOND),
    ]
    parts += [
        Part(ellipse(0, 0.12, width, length * 0.85, 32)),
        Part(line(0, -length * 0.45, 0, length, 0.04), DARK),
    ]
    for _ in range(d.count(0, 4)):
        x, y, r = d(0.1, 0.35) * width / 0.45, d(-0.2, 0.6), d(0.05, 0.14)
        parts += [Part(ellipse(side * x, y, r, r, 12), LIGHT) for side in (-1, 1)]
    return parts


def flower(d: Draw) -> list[Part]:
    petals, length, width, heart = d.count(4, 12), d(0.35, 0.62), d(0.12, 0.34), d(0.12, 0.26)
    stem, pointed, bend = d(0.3, 0.9), d.chance(0.4), d.pose(-0.3, 0.3)
    curve = np.array([[0, -0.25], [bend * 0.3, 0.2], [bend, 0.25 + stem]])
    parts = [Part(stroke(curve, 0.07), SECOND)]
    leaf = rounded(polygon((bend * 0.4, 0.35), (0.3, 0.15), (0.55, 0.2), (0.25, 0.42)))
    parts += [Part(leaf, SECOND)] + ([Part(mirrored(leaf) + (bend, 0.1), SECOND)] if d.chance(0.5) else [])
    one = ellipse(0, -length * 0.6, width, length * 0.55, 20)
    if pointed:
        one = rounded(polygon((0, 0), (width, -length * 0.5), (0, -length * 1.2), (-width, -length * 0.5)), 1)
    start, view = d.pose(0, 2 * np.pi), d.pose(0.6, 1.0)
    for n in range(petals):
        parts.append(Part(turned(one, start + 2 * np.pi * n / petals) * (1, view) + (0, -0.3)))
    parts.append(Part(ellipse(0, -0.3, heart, heart * view), LIGHT))
    return parts


def tree(d: Draw) -> list[Part]:
    trunk, thick, crown = d(0.3, 0.8), d(0.08, 0.24), d(0.4, 0.75)
    parts = [
        Part(
            polygon(
                (-thick, 0.9),
                (-thick * 0.6, 0.9 - trunk - 0.3),
                (thick * 0.6, 0.9 - trunk - 0.3),
                (thick, 0.9),
            ),
            DARK,
        )
    ]
    top = 0.9 - trunk
    if d.chance(0.45):  # a conifer
        tiers = d.count(2, 4)
        height = d(1.0, 1.5)
        for n in range(tiers):
            y, half = top - height * n / (tiers + 0.6), crown * (1 - 0.7 * n / tiers)
            parts.append(Part(polygon((-half, y), (0, y - height / tiers - 0.12), (half, y))))
    else:
        lobes, depth = d.count(5, 11), d(0.04, 0.16)
        clumps = d.count(1, 3)
        for n in range(clumps):
            x = (n - (clumps - 1) / 2) * crown * 0.8
            parts.append(
                Part(
                    wavy(
                        x,
                        top - crown * 0.6 - 0.25 * (n % 2),
                        crown * (0.95 if clumps == 1 else 0.65),
                        lobes,
                        depth,
                    )
                )
            )
        for _ in range(d.count(0, 5)):
            x, y = d.pose(-0.6, 0.6) * crown, top - crown * 0.6 + d.pose(-0.5, 0.5) * crown
            parts.append(Part(ellipse(x, y, 0.08, 0.08, 12), LIGHT))
    return parts


def mushroom(d: Draw) -> list[Part]:
    cap, dome, stem, thick, brim = d(0.55, 0.95), d(0.35, 0.9), d(0.5, 0.95), d(0.1, 0.28), d(-0.1, 0.25)
    foot = thick * d(0.9, 1.8)
    parts = [Part(rounded(polygon((-thick, 0.0), (thick, 0.0), (foot, stem), (-foot, stem)), 1), SECOND)]
    if d.chance(0.5):
        parts.append(Part(rounded(polygon((-thick * 1.7, 0.35), (0, 0.15), (thick * 1.7, 0.35)), 1), LIGHT))
    hat = rounded(
        polygon(
            (-cap, brim),
            (-cap * 0.7, -dome * 0.8),
            (0, -dome * 1.15),
            (cap * 0.7, -dome * 0.8),
            (cap, brim),
            (0, 0.12),
        )
    )
    parts.append(Part(hat))
    for n in range(d.count(0, 6)):
        r = d(0.05, 0.14)
        parts.append(
            Part(
                ellipse(
                    (n % 3 - 1) * cap * 0.45 + d.pose(-0.06, 0.06),
                    -dome * (0.3 + 0.35 * (n // 3)),
                    r,
                    r * 0.8,
                    12,
                ),
                LIGHT,
            )
        )
    return parts


def snail(d: Draw) -> list[Part]:
    shell, turns, foot, height = d(0.4, 0.65), d(1.5, 3.2), d(0.7, 1.0), d(0.12, 0.24)
    neck, stretch = d(0.3, 0.65), d.pose(-0.1, 0.15)
    x = foot + stretch
    body = rounded(
        polygon(
            (-foot, 0.55),
            (-foot * 0.5, 0.55 - height * 1.6),
            (0.4, 0.5 - height),
            (x - 0.25, 0.5 - neck),
            (x, 0.42 - neck),
            (x + 0.05, 0.55),
            (x - 0.2, 0.62),
        )
    )
    parts = [
        Part(line(x - 0.1 * n, 0.5 - neck, x + 0.05 - 0.22 * n, 0.3 - neck - d(0.05, 0.3), 0.05), DARK)
        for n in (0, 1)
    ]
    parts.append(Part(body, SECOND))
    center = (-0.1, 0.45 - shell)
    round_or_tall = d(0.75, 1.1)
    parts.append(Part(ellipse(0, 0, shell, shell * round_or_tall) + center))
    parts.append(Part(stroke(spiral(turns, 0.04, shell * 0.92) * (1, round_or_tall), 0.07) + center, DARK))
    return parts


def car(d: Draw) -> list[Part]:
    length, height, cabin, roof, wheel = d(0.75, 1.0), d(0.2, 0.36), d(0.3, 0.62), d(0.25, 0.5), d(0.15, 0.26)
    shift, slope, axle = d(-0.25, 0.2), d(0.05, 0.3), d(0.45, 0.65)
    body = rounded(
        polygon(
            (-length, 0.3), (-length, 0.3 - height * 1.1), (length, 0.3 - height * d(0.7, 1.2)), (length, 0.3)
        ),
        1,
    )
    top = 0.32 - height
    house = polygon(
        (shift - cabin, top),
        (shift - cabin + slope * 0.6, top - roof),
        (shift + cabin - slope, top - roof),
        (shift + cabin, top),
    )
    parts = [Part(house), Part(body)]
    windows = d.count(1, 3)
    left, right = shift - cabin + slope * 0.7, shift + cabin - slope
    for n in range(windows):
        x0, x1 = (left + (right - left) * (n + end) / windows for end in (0.08, 0.92))
        parts.append(Part(box(x0, top - roof * 0.85, x1, top - roof * 0.12), LIGHT))
    if d.chance(0.5):
        parts.append(
            Part(box(-length * 0.97, 0.3 - height * 0.55, length * 0.97, 0.3 - height * 0.25), SECOND)
        )
    for x in (-axle * length, axle * length):
        parts += [
            Part(ellipse(x, 0.33, wheel, wheel), DARK),
            Part(ellipse(x, 0.33, wheel * 0.5, wheel * 0.5, 16), LIGHT),
        ]
    return parts


def boat(d: Draw) -> list[Part]:
    length, depth, mast, rake = d(0.65, 1.0), d(0.2, 0.42), d(0.7, 1.2), d(0.05, 0.4)
    hull = rounded(
        polygon(
            (-length, 0.3),
            (length, 0.3 - d(0.0, 0.15)),
            (length - rake, 0.3 + depth),
            (-length + rake * 0.6, 0.3 + depth),
        ),
        1,
    )
    parts = []
    if d.chance(0.65):
        place, width = d(-0.15, 0.2), d(0.35, 0.75)
        parts.append(Part(line(place, 0.35, place, 0.3 - mast, 0.06), DARK))
        belly = d.pose(0.0, 0.2)
        parts.append(
            Part(
                rounded(
                    polygon(
                        (place + 0.05, 0.3 - mast),
                        (place + 0.05 + belly, 0.2 - mast * 0.4),
                        (place + width, 0.18),
                        (place + 0.05, 0.18),
                    ),
                    1,
                ),
                LIGHT,
            )
        )
        if d.chance(0.6):
            parts.append(
                Part(
                    polygon(
                        (place - 0.05, 0.35 - mast), (place - width * d(0.5, 1.0), 0.18), (place - 0.05, 0.18)
                    ),
                    SECOND,
                )
            )
    else:
        funnels, deck = d.count(1, 3), d(0.3, 0.6)
        for n in range(funnels):
            x = (n - (funnels - 1) / 2) * 0.35
            parts.append(Part(box(x - 0.09, -0.35 - mast * 0.25, x + 0.09, 0.1), SECOND))
        parts.append(Part(box(-deck, -0.15, deck, 0.35), LIGHT))
        parts += [
            Part(ellipse(x, 0.05, 0.07, 0.07, 12), DARK)
            for x in np.linspace(-deck * 0.7, deck * 0.7, d.count(2, 4))
        ]
    parts.append(Part(hull))
    if d.chance(0.5):
        parts.append(
            Part(line(-length * 0.9, 0.36 + depth * 0.2, length * 0.85, 0.34 + depth * 0.2, 0.07), SECOND)
        )
    return parts


def house(d: Draw) -> list[Part]:
    width, height, roof, eaves = d(0.45, 0.8), d(0.5, 0.9), d(0.2, 0.75), d(0.03, 0.2)
    flat, top = d(0.0, 0.7), 0.85 - height
    parts = []
    if d.chance(0.6):
        x = d(-0.35, 0.35)
        parts.append(Part(box(x - 0.08, top - roof * 0.9 - 0.15, x + 0.08, top), DARK))
    parts.append(Part(box(-width, top, width, 0.85)))
    parts.append(
        Part(
            polygon(
                (-width - eaves, top),
                (-width * flat, top - roof),
                (width * flat, top - roof),
                (width + eaves, top),
            ),
            SECOND,
        )
    )
    columns, rows = d.count(2, 4), d.count(1, 3)
    door = d.count(0, columns - 1)
    for row in range(rows):
        for column in range(columns):
            x = -width + 2 * width * (column + 0.5) / columns
            y = top + height * (row + 0.5) / rows
            w, h = width / columns * 0.55, height / rows * 0.3
            if row == rows - 1 and column == door:
                parts.append(Part(box(x - w, y - h, x + w, 0.85), DARK))
            else:
                parts.append(Part(box(x - w, y - h, x + w, y + h), LIGHT))
    return parts


def cup(d: Draw) -> list[Part]:
    top, bottom, height, ear = d(0.4, 0.75), d(0.25, 0.6), d(0.4, 0.75), d(0.15, 0.4)
    parts = []
    handles = d.count(0, 2) if top < 0.6 else 1
    for side in (1, -1)[:handles]:
        ring = ellipse(0, 0, ear, height * 0.5, 20)
        bow = stroke(np.concatenate([ring[-6:], ring[:7]]), 0.11)
        parts.append(Part((bow + ((top + bottom) / 2, 0)) * (side, 1), SECOND))
    if handles == 0:
        parts.append(Part(box(-0.09, height * 0.8, 0.09, height + ear + 0.1), SECOND))
        parts.append(Part(ellipse(0, height + ear + 0.12, bottom * 0.9, 0.1), SECOND))
    parts.append(
        Part(rounded(polygon((-top, -height), (top, -height), (bottom, height), (-bottom, height)), 1))
    )
    for _ in range(d.count(0, 2)):
        y = d(-0.5, 0.6) * height
        half = (top + bottom) / 2 + (bottom - top) / 2 * y / height
        parts.append(Part(box(-half, y - 0.07, half, y + 0.07), SECOND))
    parts.append(Part(ellipse(0, -height * 0.92, top * 0.93, 0.12 + d.pose(0, 0.1)), DARK))
    if d.chance(0.3):
        parts.append(Part(line(0.1, -height * 0.9, top * 0.8, -height - 0.5, 0.07), LIGHT))
    return parts


KINDS: dict[str, Callable[[Draw], list[Part]]] = {
    build.__name__: build
    for build in (bird, fish, butterfly, beetle, flower, tree, mushroom, snail, car, boat, house, cup)
}
