"""The body model's tables: where its vertices lie on the charts, and how far apart they are on the surface.

Nothing about a particular body stands here: the number of vertices and the mean distances come from the tables.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from scipy.io import loadmat

from moco_densepose.charts import COARSE_OF_CHART, GROUP_OF_CHART, NUM_CHARTS, NUM_GROUPS
from moco_det.weights.backbone_file import restricted_load


class BodyTables:
    """A body's surface, sampled.

    V points of the surface have chart coordinates; each stands for one of W vertices, between which distances are
    known (of the human model, several points of a seam and of a subdivided face share one).
    """

    def __init__(
        self, label: np.ndarray, u: np.ndarray, v: np.ndarray, vertex: np.ndarray, distances: np.ndarray
    ):
        """
        Args:
            label: V, chart I of each point, 1 to NUM_CHARTS.
            u, v: V each, in [0, 1].
            vertex: V, index of its vertex, from 0.
            distances: W (W - 1) / 2 geodesic distances (in the body's unit of length) between vertices i > j, in
                the order (1, 0), (2, 0), (2, 1), (3, 0), …

        Raises:
            ValueError: the tables do not fit one another.
        """
        self.label, self.u, self.v, self.vertex = label, u, v, vertex
        self.distances = distances
        self.num_vertices = round((1 + np.sqrt(1 + 8 * len(distances))) / 2)
        if self.num_vertices * (self.num_vertices - 1) // 2 != len(distances):
            raise ValueError(
                f"the table of distances has {len(distances)} entries, which is W (W - 1) / 2 for no number of "
                "vertices W; it is not whole"
            )
        if not len(label) == len(u) == len(v) == len(vertex) or vertex.max() >= self.num_vertices:
            raise ValueError(
                f"{len(label)} labels, {len(u)} and {len(v)} coordinates and {len(vertex)} vertex indices up to "
                f"{vertex.max()} do not fit {self.num_vertices} vertices: the tables are of different bodies"
            )

    def closest_points(self, label: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Index of the surface point closest on its chart to each of K; -1 where ``label`` is no chart.

        Args:
            label, u, v: K each.
        """
        closest = np.full(len(label), -1)
        for chart in range(1, NUM_CHARTS + 1):
            wanted, (points,) = label == chart, self._points_of_chart[chart]
            if wanted.any() and len(points):
                squared = (u[wanted, None] - self.u[points]) ** 2 + (v[wanted, None] - self.v[points]) ** 2
                closest[wanted] = points[squared.argmin(axis=1)]
        return closest

    @cached_property
    def _points_of_chart(self) -> list[tuple[np.ndarray]]:
        return [np.nonzero(self.label == chart) for chart in range(NUM_CHARTS + 1)]

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Geodesic distances of K pairs of surface points; infinite where either is -1."""
        known = (first >= 0) & (second >= 0)
        i, j = self.vertex[first[known]].astype(np.int64), self.vertex[second[known]].astype(np.int64)
        i, j = np.maximum(i, j), np.minimum(i, j)
        found = np.zeros(len(i))
        apart = i != j
        found[apart] = self.distances[i[apart] * (i[apart] - 1) // 2 + j[apart]]
        distances = np.full(len(first), np.inf)
        distances[known] = found
        return distances

    @cached_property
    def mean_distances(self) -> np.ndarray:
        """NUM_GROUPS + 1: of each group of charts, the mean distance of two vertices on one body part; first a 0.

        The two sides of a limb are one part, left and right are two: else it would be the way between two hands.
        """
        return np.array([0.0] + [self._mean_distance(group) for group in range(1, NUM_GROUPS + 1)])

    def _mean_distance(self, group: int) -> float:
        total, pairs = 0.0, 0
        for part in np.unique(COARSE_OF_CHART[GROUP_OF_CHART == group]):
            vertices = np.unique(self.vertex[COARSE_OF_CHART[self.label] == part]).astype(np.int64)
            for count, vertex in enumerate(vertices):  # row by row: a person's table has 380 million entries
                start = vertex * (vertex - 1) // 2
                total += float(self.distances[start + vertices[:count]].sum(dtype=np.float64))
                pairs += count
        if not pairs or not np.isfinite(total):
            raise ValueError(
                f"the tables give the charts of group {group} {pairs} pairs of vertices and a summed distance of "
                f"{total}; expected at least one pair, at finite distances"
            )
        return total / pairs


def read_body_tables(surface: str, index: str, distances: str) -> BodyTables:
    """Read the tables as DensePose publishes them.

    Args:
        surface: ``SMPL_subdiv.mat`` or an .npz with the same names: U_subdiv, V_subdiv, Part_ID_subdiv.
        index: ``SMPL_SUBDIV_TRANSFORM.mat`` or an .npz: index, from 1.
        distances: ``Pdist_matrix.pkl``: a dict with Pdist_matrix.

    Raises:
        ValueError: a file cannot be read safely, or lacks a table; names both.
    """
    points = read_arrays(surface, ("U_subdiv", "V_subdiv", "Part_ID_subdiv"))
    u, v, label = (points[name].ravel() for name in ("U_subdiv", "V_subdiv", "Part_ID_subdiv"))
    vertex = read_arrays(index, ("index",))["index"].ravel().astype(np.int64) - 1
    content = restricted_load(distances)
    if not isinstance(content, Mapping) or not isinstance(content.get("Pdist_matrix"), np.ndarray):
        raise ValueError(f"{distances}: expected a dict with an array 'Pdist_matrix'; found {_kind(content)}")
    return BodyTables(label.astype(np.int64), u, v, vertex, content["Pdist_matrix"].ravel())


def _kind(content: object) -> str:
    return f"the keys {sorted(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__


def read_arrays(path: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Named arrays of a .mat or .npz file.

    Raises:
        ValueError: one is not there.
    """
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names if name in file}
    else:
        arrays = _read_mat(path)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"{path}: has no array {missing[0]!r}; expected {', '.join(names)}")
    return {name: arrays[name] for name in names}


def _read_mat(path: str) -> dict[str, np.ndarray]:
    try:
        return loadmat(path)
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{path}: not a MATLAB file, or a damaged one ({error}); fetch it again") from error
