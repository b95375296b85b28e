"""results/ and the tables generated from it."""

import json
from pathlib import Path

import pytest

from moco_det.report.kept_results import (
    FIGURE,
    MARKER,
    STUDIES,
    figure_is_current,
    load_all_results,
    load_results,
    paper_table,
    render,
    result_id,
    results_table,
    save_results,
    update_tables,
)
from moco_det.report.own import study_rows
from moco_det.report.rows import build_rows
from moco_det.report.runs import read_run

ROOT = Path(__file__).resolve().parents[2]
EMPTY = "<!-- results:photos -->\nold\n<!-- /results:photos -->"


@pytest.fixture
def runs(make_run, make_pretraining):
    aps = {"random": (10.0, 11.0, 12.0), "moco": (14.0, 16.0, 18.0)}
    folders = [
        make_run(f"{init}{seed}", init=init, seed=seed, ap=ap)
        for init, values in aps.items()
        for seed, ap in enumerate(values)
    ]
    return [read_run(folder) for folder in [*folders, make_pretraining()]]


def test_results_round_trip(runs, tmp_path):
    paths = save_results(runs, tmp_path, "photos")
    assert len(set(paths)) == 7
    loaded = {
        run.record["command"] + run.init + str(run.seed): run for run in load_results(tmp_path, "photos")
    }
    for run in runs:
        kept = loaded[run.record["command"] + run.init + str(run.seed)]
        assert kept.metrics == run.metrics
        assert kept.record == {**run.record, "extra": {**run.record["extra"], "iterations": 100}}
        assert kept.curves == {name: run.curves[name] for name in run.curves if name == "bbox/AP"}
        assert (kept.config_hash, kept.weights, kept.iterations) == (run.config_hash, run.weights, 100)
    assert results_table(load_results(tmp_path, "photos")) == results_table(runs)


def test_running_again_overwrites_its_own_file_only(make_run, tmp_path):
    first = save_results([read_run(make_run("a", ap=1.0))], tmp_path, "s")
    other = save_results([read_run(make_run("b", ap=5.0, seed=1))], tmp_path, "s")
    again = save_results([read_run(make_run("c", ap=2.0, commit="new"))], tmp_path, "s")
    assert again == first != other
    assert sorted(run.metrics["bbox/AP"] for run in load_results(tmp_path, "s")) == [2.0, 5.0]


def test_runs_without_a_fixed_seed_keep_a_file_each(make_run, tmp_path):
    runs = [
        read_run(make_run(day, seed=-1, finished=f"2026-01-{day}T00:00:00+00:00")) for day in ("01", "02")
    ]
    assert len(set(save_results(runs, tmp_path, "s"))) == 2


def test_table_of_a_suite(runs):
    text = results_table(runs)
    assert "| toy/faster_rcnn | 100 | random | 3 | 11.0 ± 1.0 | — | 2.0 |\n" in text
    assert text.count("Measured on Some CPU, 2 cores.") == 1
    assert "| moco | 3 | 16.0 ± 2.0 | +5.0 [+2.5, +7.5] | 2.0 |" in text
    assert "| pretrain | 100 | 1 | 21.0 | 33.0 | 24,000 | 960,000 | 2.0 |" in text
    assert text.count("<details>") == 1
    assert "python tools/train_net.py --init moco" in text


def test_commands_that_differ_in_the_seed_alone_are_one(make_run):
    def command(seed, rate):
        return f"train SEED {seed} LR {rate} OUTPUT_DIR out/x_seed{seed}"

    rows = {"a": ("0.1", "0.1"), "b": ("0.1", "0.2")}
    runs = [
        read_run(make_run(f"{init}{seed}", init=init, seed=seed, command=command(seed, rates[seed - 1])))
        for init, rates in rows.items()
        for seed in (1, 2)
    ]
    text = results_table(runs)
    assert "iterations, a; N = 1, 2\ntrain SEED N LR 0.1 OUTPUT_DIR out/x_seedN\n" in text
    assert f"iterations, b\n{command(1, '0.1')}\n{command(2, '0.2')}\n" in text
    assert "train" not in results_table(runs, commands=False)


def test_update_replaces_what_stands_between_the_markers_only(runs, tmp_path):
    save_results(runs, tmp_path / "results", "photos")
    document = tmp_path / "ZOO.md"
    document.write_text(f"before\n\n{EMPTY}\n\nafter\n")
    assert update_tables(document, tmp_path / "results")
    text = document.read_text()
    assert text.startswith("before\n\n<!-- results:photos -->\n") and text.endswith("photos -->\n\nafter\n")
    assert "+5.0 [+2.5, +7.5]" in text and "old" not in text
    assert not update_tables(document, tmp_path / "results"), "a second update changed something"


def test_a_suite_without_results_says_so(tmp_path):
    assert render(EMPTY, tmp_path) == "<!-- results:photos -->\nNot measured yet.\n<!-- /results:photos -->"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no markers here", "has no markers; expected a line such as"),
        (
            "<!-- numbers:a -->\n<!-- /numbers:a -->",
            "unknown marker .*known kinds: results, summary, paper, abl",
        ),
        ("<!-- results:a -->\n", "expected <!-- /results:a -->, found the end of the file"),
        (
            "<!-- results:a -->\n<!-- /results:b -->",
            "expected <!-- /results:a -->, found <!-- /results:b -->",
        ),
        ("<!-- /results:a -->\n<!-- /results:a -->", "expected"),
        (
            "<!-- paper:ADE20k -->\n<!-- /paper:ADE20k -->",
            "known: COCO-DensePose, .*, COCO-Keypoints, Cityscapes, .*, PascalVOC-Detection",
        ),
    ],
)
def test_wrong_markers_are_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        render(text, tmp_path)


def test_broken_result_and_bad_suite_name_are_refused(tmp_path, runs):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "x.json").write_text(json.dumps(runs[0].record))
    with pytest.raises(ValueError, match="is not a kept run"):
        load_results(tmp_path, "s")
    for name in ("../elsewhere", "speed"):
        with pytest.raises(ValueError, match="--suite takes a name"):
            save_results(runs, tmp_path, name)


def test_measurements_of_a_machine_are_no_runs(tmp_path, runs):
    save_results(runs[:1], tmp_path, "a")
    save_results(runs[1:], tmp_path, "b")
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "gpu.json").write_text("{}")
    assert sorted(map(result_id, load_all_results(tmp_path))) == sorted(map(result_id, runs))


def test_paper_table_has_the_printed_numbers():
    voc = paper_table("PascalVOC-Detection")
    assert "| 24,000 | random | 33.8 | 60.2 | 33.1 | Table 2, mean of 5 |" in voc
    assert "| 24,000 | MoCo IN-1M | 55.9 | 81.5 | 62.6 |" in voc
    coco = paper_table("COCO-Instance")
    assert "| 180,000 | MoCo IN-1M | 40.7 | 60.5 | 44.1 | 35.4 | 57.3 | 37.6 | Table 5 |" in coco
    assert "| 90,000 | random | 26.4 | 44.0 | 27.8 | 29.3 | 46.9 | 30.8 | Table 5 |" in coco


@pytest.mark.parametrize(
    "document",
    [
        path
        for folder in ("*.md", "docs/*.md", "projects/**/*.md")
        for path in sorted(ROOT.glob(folder))
        if MARKER.search(path.read_text(encoding="utf-8"))
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_committed_tables_are_those_of_the_files(document):
    text = document.read_text(encoding="utf-8")
    message = f"run: tools/make_report.py --update-tables {document.relative_to(ROOT)}"
    assert render(text, ROOT / "results", document.name) == text, message
    for name in {opening[3] for opening in MARKER.finditer(text) if opening[2] in STUDIES}:
        rows = study_rows(build_rows(load_results(ROOT / "results", f"own-{name}"))[0])
        assert figure_is_current(ROOT / f"results/own-{name}" / FIGURE, rows), message
