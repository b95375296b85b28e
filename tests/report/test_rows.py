"""What is averaged with what, and what is compared with what."""

import pytest

from moco_det.report.rows import build_rows, difference, pairs, reference_of
from moco_det.report.runs import read_run


@pytest.fixture
def rows_of(make_run):
    """rows_of({"name": {…}}) -> rows and notes of such runs."""

    def rows_of(runs):
        return build_rows([read_run(make_run(name, **about)) for name, about in runs.items()])

    return rows_of


def test_seeds_share_a_row_and_random_comes_first(rows_of):
    rows, notes = rows_of(
        {
            "m0": {"init": "moco", "ap": 20.0},
            "r1": {"seed": 1, "ap": 12.0},
            "r0": {"seed": 0, "ap": 10.0},
        }
    )
    assert [(row.label, [run.seed for run in row.runs]) for row in rows] == [
        ("random", [0, 1]),
        ("moco", [0]),
    ]
    assert str(rows[0].summary("bbox/AP")) == "11.0 ± 1.4"
    assert notes == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"config_hash": "bbbbbbbbbbbb"}, "config"),
        ({"commit": "fff0000000"}, "commit"),
        ({"extra": {"weights_sha256": "f" * 64}.items()}, "weights"),
    ],
)
def test_unlike_runs_never_share_a_row(rows_of, change, word):
    rows, notes = rows_of({"a": {"ap": 10.0}, "b": {"seed": 1, "ap": 90.0, **change}})
    assert [row.label for row in rows] == ["random (a)", "random (b)"]
    assert [row.summary("bbox/AP").mean for row in rows] == [10.0, 90.0]
    assert len(notes) == 1 and f"runs of different {word} stand apart" in notes[0]


def test_schedules_and_tasks_are_rows_without_a_note(rows_of):
    rows, notes = rows_of({"a": {}, "b": {"iterations": 300}, "c": {"task": "toy/other"}})
    assert len(rows) == 3 and notes == [] and not any(row.variant for row in rows)


def test_the_same_seed_twice_counts_once(rows_of):
    old, new = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    rows, notes = rows_of({"new": {"ap": 11.0, "finished": new}, "old": {"ap": 99.0, "finished": old}})
    assert [run.folder.name for run in rows[0].runs] == ["new"]
    assert "ran more than once; the older old is left out" in notes[0]


def test_runs_without_a_fixed_seed_are_all_averaged_but_never_paired(rows_of):
    seeds = (-1, -1, 0, 1)
    runs = {f"r{i}": {"seed": seed, "ap": float(i)} for i, seed in enumerate(seeds)}
    rows, _ = rows_of(runs | {f"m{i}": {"init": "moco", "seed": seed} for i, seed in enumerate(seeds)})
    assert [row.summary("bbox/AP").n for row in rows] == [4, 4]
    assert difference(rows[1], rows[0], "bbox/AP") is None, "only the seeds 0 and 1 are shared"


def three(init, **about):
    return {f"{init}{seed}": {"init": init, "seed": seed, **about} for seed in range(3)}


def test_the_reference_is_random_init_of_the_same_recipe_and_code(rows_of):
    rows, _ = rows_of(three("random") | three("moco", ap=14.0, config_hash="with_other_input"))
    random, moco = rows
    assert reference_of(moco, rows) is random
    assert reference_of(random, rows) is None
    assert pairs(rows) == [(moco, random)]
    assert difference(moco, random, "bbox/AP").mean == 4.0


@pytest.mark.parametrize("change", [{"recipe_hash": "other"}, {"commit": "other"}, {"iterations": 300}])
def test_unlike_rows_are_not_compared(rows_of, change):
    rows, _ = rows_of(three("random") | three("moco", ap=14.0, **change))
    random = next(row for row in rows if row.init == "random")
    moco = next(row for row in rows if row.init == "moco")
    assert reference_of(moco, rows) is None
    assert pairs(rows) == []
    assert difference(moco, random, "bbox/AP") is None
