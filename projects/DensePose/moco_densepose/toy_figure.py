"""The toy body: fourteen flat, rounded parts, each seen from the front or from the back, covered by 24 charts.

A point of its surface is ``(part, side, a, b)``: a part's index, side 0 (front) or 1 (back), and two coordinates
in [-1, 1]: ``a`` across the part, growing towards the body's left, ``b`` along it, growing downwards at rest.
Charts are of three kinds, none of which a mirror leaves as it is:

* torso and limbs have a chart for each side. On the body's right the axes are exchanged;
* a hand or a foot has one chart around both sides;
* the head has one around each half.

The body is not a person's: it has the labels of COCO dense pose and a surface of its own.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from moco_densepose.charts import MIRRORED_CHART

FRONT, BACK = 0, 1


@dataclass(frozen=True)
class Part:
    """A part of the body, in metres and in the rest pose (x to the body's left, y downwards).

    Attributes:
        charts: labels I by side; for the head by half (left, right).
        parent: the part it hangs on; empty for the torso.
        joint: where it hangs, from the parent's joint (of the torso: from its center), in the parent's axes.
        offset: its center, from its joint.
        half: half its width and length.
        power: of its outline ``|a|^p + |b|^p = 1``; 2 is an ellipse, more is squarer.
        rest: angle in the rest pose, in radians, clockwise on the picture of a front.
    """

    name: str
    charts: tuple[int, int]
    parent: str
    joint: tuple[float, float]
    offset: tuple[float, float]
    half: tuple[float, float]
    power: float = 4.0
    rest: float = 0.0

    @property
    def kind(self) -> str:
        if self.name == "head":
            return "halves"
        return "around" if self.charts[0] == self.charts[1] else "sides"

    @property
    def right(self) -> bool:
        return self.name.startswith("right")


def _pair(name, left, right, parent, joint, offset, half, power=4.0, rest=0.0):
    """A part of the left and its mirror image on the right."""
    of_left, of_right = (f"{side} {parent}" if parent != "torso" else parent for side in ("left", "right"))
    mirrored = (-joint[0], joint[1]), (-offset[0], offset[1])
    return (
        Part(f"left {name}", left, of_left, joint, offset, half, power, rest),
        Part(f"right {name}", right, of_right, *mirrored, half, power, -rest),
    )


PARTS = (
    Part("torso", (2, 1), "", (0.0, 0.0), (0.0, 0.0), (0.20, 0.31)),
    Part("head", (23, 24), "torso", (0.0, -0.30), (0.0, -0.16), (0.14, 0.17), power=2.0),
    *_pair("upper arm", (15, 17), (16, 18), "torso", (0.20, -0.23), (0.0, 0.14), (0.08, 0.18), rest=-0.35),
    *_pair("lower arm", (19, 21), (20, 22), "upper arm", (0.0, 0.29), (0.0, 0.14), (0.07, 0.17), rest=-0.35),
    *_pair("hand", (4, 4), (3, 3), "lower arm", (0.0, 0.29), (0.0, 0.06), (0.08, 0.09), 2.0, rest=-0.35),
    *_pair("upper leg", (10, 8), (9, 7), "torso", (0.11, 0.27), (0.0, 0.19), (0.105, 0.22), rest=-0.08),
    *_pair("lower leg", (14, 12), (13, 11), "upper leg", (0.0, 0.38), (0.0, 0.19), (0.09, 0.21), rest=-0.08),
    *_pair("foot", (5, 5), (6, 6), "lower leg", (0.0, 0.38), (0.03, 0.04), (0.11, 0.075), 2.5, rest=-0.08),
)
INDEX = {part.name: index for index, part in enumerate(PARTS)}
# Drawn from front to back; of a pair, the side that the pose names comes first.
DEPTH_ORDER = ("hand", "lower arm", "upper arm", "head", "torso", "foot", "lower leg", "upper leg")


def mirrored_name(name: str) -> str:
    """The part that a mirror makes of one."""
    for a, b in (("left ", "right "), ("right ", "left ")):
        if name.startswith(a):
            return b + name.removeprefix(a)
    return name


@dataclass(frozen=True)
class Pose:
    """How a body stands in a picture.

    Attributes:
        center: the torso's center, x and y in pixels.
        scale: pixels a metre.
        back: whether it is seen from behind.
        turns: by name, how far a part is turned against its parent beyond the rest pose, in radians, clockwise
            on the picture of a front.
        left_first: whether the left hides the right where they cross.
    """

    center: tuple[float, float]
    scale: float
    back: bool = False
    turns: dict[str, float] = field(default_factory=dict)
    left_first: bool = True

    def mirrored(self, width: int) -> "Pose":
        """The pose in the mirrored picture: left and right exchange their parts, the facing stays."""
        turns = {mirrored_name(name): -turn for name, turn in self.turns.items()}
        center = (width - self.center[0], self.center[1])
        return Pose(center, self.scale, self.back, turns, not self.left_first)


def _rotation(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def placements(turns: dict[str, float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Center (2, metres from the torso's) and rotation (2 x 2, own axes to the body's) of each part."""
    joints, angles, places = {}, {}, []
    for part in PARTS:
        parent = PARTS[INDEX[part.parent]] if part.parent else None
        angle = turns.get(part.name, 0.0) + part.rest
        joint = np.array(part.joint)
        if parent is not None:
            angle += angles[parent.name] - parent.rest
            joint = joints[parent.name] + _rotation(angles[parent.name]) @ joint
        joints[part.name], angles[part.name] = joint, angle
        places.append((joint + _rotation(angle) @ np.array(part.offset), _rotation(angle)))
    return places


def to_chart(part: int, side: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    """Labels I and coordinates U, V in [0, 1] of surface points of one part."""
    of, across, along = PARTS[part], (1 + a) / 2, (1 + b) / 2
    if of.kind == "halves":
        label = np.where(a > 0, of.charts[0], of.charts[1])
        return label, np.where(side == FRONT, np.abs(a) / 2, 1 - np.abs(a) / 2), along
    label = np.where(side == FRONT, of.charts[0], of.charts[1])
    if of.kind == "around":
        return label, np.where(side == FRONT, across / 2, 1 - across / 2), along
    return (label, along, across) if of.right else (label, across, along)


@lru_cache
def _parts_of_charts() -> dict[int, int]:
    return {chart: index for index, part in enumerate(PARTS) for chart in part.charts}


def from_chart(label: int, u: np.ndarray, v: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of :func:`to_chart` for points of one chart: part, side, a, b."""
    index = _parts_of_charts()[label]
    part = PARTS[index]
    if part.kind == "sides":
        across, along = (v, u) if part.right else (u, v)
        return index, np.full(u.shape, part.charts.index(label)), 2 * across - 1, 2 * along - 1
    side = np.where(u > 0.5, BACK, FRONT)
    folded = 2 * np.where(u > 0.5, 1 - u, u)
    if part.kind == "around":
        return index, side, 2 * folded - 1, 2 * v - 1
    return index, side, folded if label == part.charts[0] else -folded, 2 * v - 1


def mirror_points(label: int, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """I, U, V of the mirrored surface points of one chart."""
    part, side, a, b = from_chart(label, u, v)
    mirrored, u, v = to_chart(INDEX[mirrored_name(PARTS[part].name)], side, -a, b)
    if PARTS[part].kind == "halves":  # a = 0 belongs to either half
        mirrored = np.full(u.shape, MIRRORED_CHART[label])
    return mirrored, u, v


@dataclass(frozen=True)
class Rendered:
    """A body in a picture, H x W each.

    Attributes:
        part: index of the part that is seen, -1 where the body is not.
        a, b: the surface point; 0 where the body is not.
        label, u, v: I, U and V; 0 where the body is not.
    """

    part: np.ndarray
    a: np.ndarray
    b: np.ndarray
    label: np.ndarray
    u: np.ndarray
    v: np.ndarray


def render(pose: Pose, height: int, width: int) -> Rendered:
    """What is seen of a body at the middle of each pixel."""
    y, x = np.mgrid[:height, :width] + 0.5
    body_x = (x - pose.center[0]) / pose.scale * (-1 if pose.back else 1)
    points = np.stack([body_x, (y - pose.center[1]) / pose.scale], axis=-1)
    part = np.full((height, width), -1)
    a, b, u, v = (np.zeros((height, width)) for _ in range(4))
    label = np.zeros((height, width), dtype=np.int64)
    places = placements(pose.turns)
    for index in _drawing_order(pose.left_first):
        center, rotation = places[index]
        own = (points - center) @ rotation / PARTS[index].half  # the rotation's inverse, for row vectors
        inside = (np.abs(own) ** PARTS[index].power).sum(axis=-1) <= 1
        seen = inside & (part < 0)
        part[seen], a[seen], b[seen] = index, own[seen, 0], own[seen, 1]
        side = np.full(int(seen.sum()), BACK if pose.back else FRONT)
        label[seen], u[seen], v[seen] = to_chart(index, side, own[seen, 0], own[seen, 1])
    return Rendered(part, a, b, label, u, v)


def _drawing_order(left_first: bool) -> list[int]:
    sides = ("left", "right") if left_first else ("right", "left")
    names = [n for kind in DEPTH_ORDER for n in ([kind] if kind in INDEX else [f"{s} {kind}" for s in sides])]
    return [INDEX[name] for name in names]
