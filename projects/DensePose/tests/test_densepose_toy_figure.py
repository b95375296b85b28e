"""The toy body: charts that can be read back, a mirror that agrees with pictures, shortest distances."""

import heapq

import numpy as np
import pytest
from scipy.io import savemat

from moco_densepose import toy_tables
from moco_densepose.body_tables import read_arrays, read_body_tables
from moco_densepose.charts import COARSE_OF_CHART, GROUP_OF_CHART, MIRRORED_CHART, MIRRORED_COARSE, NUM_CHARTS
from moco_densepose.symmetry import read_symmetry
from moco_densepose.toy_figure import FRONT, INDEX, PARTS, Pose, from_chart, mirror_points, render, to_chart

POSE = Pose((30, 28), 30, turns={"left upper arm": -0.8, "right lower arm": 0.7, "left upper leg": -0.3})


def test_lists_of_labels_agree():
    assert sorted(chart for part in PARTS for chart in set(part.charts)) == list(range(1, NUM_CHARTS + 1))
    for table in (MIRRORED_CHART, MIRRORED_COARSE):
        assert (table[table] == np.arange(len(table))).all()
    assert (COARSE_OF_CHART[MIRRORED_CHART] == MIRRORED_COARSE[COARSE_OF_CHART]).all()
    assert (GROUP_OF_CHART[MIRRORED_CHART] == GROUP_OF_CHART).all()


@pytest.mark.parametrize("label", range(1, NUM_CHARTS + 1))
def test_charts_can_be_read_back(label):
    u, v = np.random.default_rng(label).uniform(0, 1, (2, 50))
    part, side, a, b = from_chart(label, u, v)
    again = to_chart(part, side, a, b)
    assert (again[0] == label).all()
    np.testing.assert_allclose(again[1:], [u, v], atol=1e-12)


@pytest.mark.parametrize("back", [False, True])
def test_a_mirrored_picture_shows_the_mirrored_body(back):
    """Which fixes what a flip has to do to I, U and V: rendering knows nothing of the tables."""
    pose = Pose(POSE.center, POSE.scale, back, POSE.turns)
    seen, mirrored = render(pose, 64, 64), render(pose.mirrored(64), 64, 64)
    flipped = {name: getattr(seen, name)[:, ::-1] for name in ("label", "u", "v")}
    assert ((flipped["label"] > 0) == (mirrored.label > 0)).all()
    for label in np.unique(seen.label)[1:]:
        here = flipped["label"] == label
        expected = mirror_points(label, flipped["u"][here], flipped["v"][here])
        np.testing.assert_allclose(
            [mirrored.label[here], mirrored.u[here], mirrored.v[here]], expected, atol=1e-9
        )


@pytest.mark.parametrize(("back", "side"), [(False, 1), (True, -1)])
def test_from_behind_the_left_is_on_the_left(back, side):
    seen = render(Pose((48, 38), 44, back), 96, 96)
    columns = np.nonzero(seen.part == INDEX["left hand"])[1]
    assert side * (columns.mean() - 48) > 10


def test_front_and_back_show_other_charts():
    front, back = (set(np.unique(render(Pose(POSE.center, 30, b), 64, 64).label)) for b in (False, True))
    both_sides = {0, 3, 4, 5, 6, 23, 24}
    assert front & back == both_sides and front | back == set(range(NUM_CHARTS + 1))
    assert to_chart(0, np.array([FRONT]), np.zeros(1), np.zeros(1))[0] == 2


def test_distances_are_shortest_paths():
    """Dijkstra from three vertices, one edge after another."""
    edges, found = toy_tables._edges(), toy_tables.geodesics()
    for start in (0, 100, len(edges) - 1):
        best, queue = {}, [(0.0, start)]
        while queue:
            distance, vertex = heapq.heappop(queue)
            if vertex not in best:
                best[vertex] = distance
                for other in np.flatnonzero(np.isfinite(edges[vertex])):
                    heapq.heappush(queue, (distance + edges[vertex, other], int(other)))
        assert len(best) == len(edges)
        np.testing.assert_allclose(found[start], [best[v] for v in range(len(edges))], atol=1e-5)


def test_the_body_is_as_far_apart_as_it_looks():
    """One hand is further from the other than a hand from its shoulder, and all of it is symmetric."""
    body = toy_tables.toy_body()
    middle = {c: body.closest_points(np.array([c]), np.array([0.5]), np.array([0.5])) for c in range(1, 25)}

    def apart(a, b):
        return body.between(middle[a], middle[b])[0]

    assert apart(3, 4) > apart(3, 20) + apart(4, 19) > 0.3
    for a, b in ((3, 20), (1, 7), (24, 6), (16, 18)):
        assert apart(a, b) == pytest.approx(apart(MIRRORED_CHART[a], MIRRORED_CHART[b]), abs=0.1)
    assert ((0.05 < body.mean_distances[1:]) & (body.mean_distances[1:] < 0.5)).all()


def test_tables_are_read_as_they_were_written(tmp_path):
    toy_tables.write_tables(tmp_path)
    surface = str(tmp_path / toy_tables.SURFACE)
    read = read_body_tables(surface, surface, str(tmp_path / toy_tables.DISTANCES))
    body = toy_tables.toy_body()
    for name in ("label", "u", "v", "vertex", "distances"):
        np.testing.assert_array_equal(getattr(read, name), getattr(body, name))
    symmetry = read_symmetry(str(tmp_path / toy_tables.SYMMETRY))
    u, v = np.random.default_rng(0).uniform(0, 1, (2, 200))
    for label in range(1, NUM_CHARTS + 1):
        found = symmetry.mirror(np.full(200, label), u, v)
        np.testing.assert_allclose(found, mirror_points(label, u, v), atol=1.01 / 255)


def test_files_of_matlab_are_read_as_the_others(tmp_path):
    """The files are as DensePose publishes them: columns, and a cell array of symmetry tables."""
    body = toy_tables.toy_body()
    columns = {"U_subdiv": body.u, "V_subdiv": body.v, "Part_ID_subdiv": body.label}
    savemat(tmp_path / "SMPL_subdiv.mat", {name: value[:, None] for name, value in columns.items()})
    savemat(tmp_path / "index.mat", {"index": body.vertex[:, None] + 1})
    toy_tables.write_tables(tmp_path)
    distances = str(tmp_path / toy_tables.DISTANCES)
    read = read_body_tables(str(tmp_path / "SMPL_subdiv.mat"), str(tmp_path / "index.mat"), distances)
    np.testing.assert_array_equal(read.vertex, body.vertex)
    np.testing.assert_array_equal(read.label, body.label)
    cells = {}
    for name, table in zip(("U_transforms", "V_transforms"), toy_tables.symmetry_tables(), strict=True):
        cells[name] = np.empty((1, NUM_CHARTS), dtype=object)
        cells[name][0, :] = [chart.astype(np.float64) for chart in table]
    savemat(tmp_path / "UV.mat", cells)
    point = np.array([9]), np.array([0.2]), np.array([0.7])
    np.testing.assert_allclose(
        read_symmetry(str(tmp_path / "UV.mat")).mirror(*point),
        read_symmetry(str(tmp_path / toy_tables.SYMMETRY)).mirror(*point),
    )


def test_what_the_tables_lack_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", U_subdiv=np.zeros(3))
    with pytest.raises(ValueError, match="x.npz: has no array 'V_subdiv'"):
        read_arrays(str(tmp_path / "x.npz"), ("U_subdiv", "V_subdiv"))
    with pytest.raises(ValueError, match="4 entries, which is W .* not whole"):
        type(toy_tables.toy_body())(*np.ones((4, 3), dtype=int), np.ones(4))
    with pytest.raises(ValueError, match="do not fit 3 vertices"):
        type(toy_tables.toy_body())(*np.full((4, 3), 3), np.ones(3))
