"""The toy body's tables, computed from its shape: surface points, geodesic distances, symmetry.

Distances are shortest paths over a net of vertices in the rest pose. Neighbors on a side, the two sides at the
rim and parts at their joints are connected. A finer net of surface points stands for the vertices
next to it, as the human model's subdivided surface does.
"""

import pickle
from functools import lru_cache
from pathlib import Path

import numpy as np

from moco_densepose.body_tables import BodyTables
from moco_densepose.charts import NUM_CHARTS
from moco_densepose.symmetry import CELLS
from moco_densepose.toy_figure import BACK, FRONT, PARTS, mirror_points, placements, to_chart

# Vertices across and along a side of a part, and surface points; even, so that none lies on an axis of symmetry.
VERTICES, POINTS = 4, 8
# Length of the way around a rim, in metres.
RIM = 0.04
# Vertices of two parts are joined up to this multiple of the shortest distance between them.
JOINED_WITHIN = 1.5
SURFACE, SYMMETRY, DISTANCES = "toy_surface.npz", "toy_symmetry.npz", "toy_distances.pkl"


def _net(part: int, count: int) -> np.ndarray:
    """Points (a, b) of a regular net that lie within the part's outline, N x 2."""
    line = (np.arange(count) + 0.5) / count * 2 - 1
    a, b = (grid.ravel() for grid in np.meshgrid(line, line))
    inside = np.abs(a) ** PARTS[part].power + np.abs(b) ** PARTS[part].power <= 1
    return np.stack([a[inside], b[inside]], axis=1)


def _vertices() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Part, side, (a, b) and place (metres, in the rest pose) of all vertices; W, W, W x 2, W x 2."""
    places = placements({})
    parts, sides, own, positions = [], [], [], []
    for part, (center, rotation) in enumerate(places):
        net = _net(part, VERTICES)
        for side in (FRONT, BACK):
            parts.append(np.full(len(net), part))
            sides.append(np.full(len(net), side))
            own.append(net)
            positions.append(center + (net * PARTS[part].half) @ rotation.T)
    return tuple(np.concatenate(values) for values in (parts, sides, own, positions))


def _edges() -> np.ndarray:
    """Lengths of the ways between neighboring vertices, in metres; W x W, infinite where there is none."""
    part, side, own, position = _vertices()
    apart = np.linalg.norm(position[:, None] - position, axis=-1)
    same_part, same_side = part[:, None] == part, side[:, None] == side
    step = np.abs(own[:, None] - own).max(axis=-1)
    neighbors = same_part & (step < 2.1 / VERTICES)
    lengths = np.where(neighbors & same_side, apart, np.inf)
    full = (neighbors & same_side).sum(axis=1) == 9  # itself and eight around it
    around = same_part & ~same_side & (step < 1e-9) & ~full[:, None]
    lengths[around] = RIM
    for index, child in enumerate(PARTS):
        if child.parent:
            parent = [p.name for p in PARTS].index(child.parent)
            joint = ((part == index)[:, None] & (part == parent)) & same_side
            joined = joint & (apart <= JOINED_WITHIN * apart[joint].min())
            lengths[joined | joined.T] = apart[joined | joined.T]
    return lengths


@lru_cache
def geodesics() -> np.ndarray:
    """Shortest distances between all vertices, in metres; W x W."""
    shortest = _edges().astype(np.float32)
    np.fill_diagonal(shortest, 0)
    through = np.empty_like(shortest)
    for middle in range(len(shortest)):  # Floyd and Warshall
        np.add(shortest[middle, :, None], shortest[middle], out=through)
        np.minimum(shortest, through, out=shortest)
    return shortest


def _surface_points() -> tuple[np.ndarray, ...]:
    """I, U, V and vertex of the finer net's points; V each."""
    part, side, own, _ = _vertices()
    rows = []
    for index in range(len(PARTS)):
        net = _net(index, POINTS)
        for of_side in (FRONT, BACK):
            near = np.flatnonzero((part == index) & (side == of_side))
            vertex = near[np.linalg.norm(net[:, None] - own[near], axis=-1).argmin(axis=1)]
            rows.append((*to_chart(index, np.full(len(net), of_side), *net.T), vertex))
    return tuple(np.concatenate(values) for values in zip(*rows, strict=True))


@lru_cache
def toy_body() -> BodyTables:
    """The toy body's tables."""
    shortest = geodesics()
    below = np.tril_indices(len(shortest), -1)
    return BodyTables(*_surface_points(), shortest[below])


def symmetry_tables() -> tuple[np.ndarray, np.ndarray]:
    """New U and V of a mirrored point, as :class:`moco_densepose.symmetry.Symmetry` takes them."""
    middle = np.minimum((np.arange(CELLS) + 0.5) / (CELLS - 1), 1)  # of the values that fall into a cell
    u, v = np.meshgrid(middle, middle)
    mirrored = [mirror_points(chart, u, v)[1:] for chart in range(1, NUM_CHARTS + 1)]
    new_u, new_v = (np.stack(tables).astype(np.float32) for tables in zip(*mirrored, strict=True))
    return new_u, new_v


def write_tables(folder: Path) -> None:
    """Write SURFACE, SYMMETRY and DISTANCES into a folder, laid out as the human model's files."""
    body = toy_body()
    names = ("U_subdiv", "V_subdiv", "Part_ID_subdiv", "index")
    values = (body.u, body.v, body.label, body.vertex + 1)
    np.savez_compressed(folder / SURFACE, **dict(zip(names, values, strict=True)))
    u, v = symmetry_tables()
    np.savez_compressed(folder / SYMMETRY, U_transforms=u, V_transforms=v)
    with open(folder / DISTANCES, "wb") as file:
        pickle.dump({"Pdist_matrix": body.distances[:, None]}, file, protocol=2)
