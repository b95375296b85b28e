"""Reading run folders: finished, unfinished, broken, interrupted."""

import pytest

from moco_det.report.runs import find_runs, read_curves, read_run


def test_runs_are_found_below_a_parent_and_counted_once(make_run, tmp_path):
    make_run("a", init="moco", seed=3, ap=12.5, extra={"weights_sha256": "0123456789abcdef"}.items())
    make_run("deep/b")
    runs, incomplete = find_runs([tmp_path, tmp_path / "runs", tmp_path / "runs" / "a"])
    assert [run.folder.name for run in runs] == ["a", "b"] and not incomplete
    run = runs[0]
    assert (run.stage, run.task, run.init, run.seed) == ("finetune", "toy/faster_rcnn", "moco", 3)
    assert (run.iterations, run.minutes, run.machine) == (100, 2.0, "Some CPU, 2 cores")
    assert (run.weights, runs[1].weights) == ("0123456789ab", "random")
    assert run.curves["bbox/AP"] == [(49, 6.25), (99, 12.5)]


def test_unfinished_and_broken_runs_are_named(make_run, tmp_path):
    make_run("good")
    (make_run("started") / "run.json").unlink()
    (make_run("broken") / "run.json").write_text('{"stage": "finetune", ')
    (make_run("foreign") / "run.json").write_text('{"stage": "finetune"}')
    make_run("nothing_found", metrics={"bbox/AP": None})
    runs, incomplete = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    reasons = {entry.folder.name: entry.reason for entry in incomplete}
    assert set(reasons) == {"started", "broken", "foreign", "nothing_found"}
    assert "did not finish" in reasons["started"]
    assert "not readable JSON" in reasons["broken"]
    assert "lacks config_hash" in reasons["foreign"]
    assert "no finite AP or mIoU" in reasons["nothing_found"]


def test_a_record_of_another_form_is_incomplete_not_a_crash(make_run, tmp_path):
    make_run("odd", machine="my laptop")
    runs, incomplete = find_runs([tmp_path])
    assert not runs
    assert "unexpected form" in incomplete[0].reason


def test_no_run_and_no_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no run found in .* run.json"):
        find_runs([tmp_path])
    with pytest.raises(ValueError, match="does not exist"):
        find_runs([tmp_path / "nowhere"])


def test_cut_last_line_is_skipped_and_said(make_run):
    folder = make_run("cut")
    with open(folder / "metrics.json", "a") as file:
        file.write('{"iteration": 119, "total_lo')
    run = read_run(folder)
    assert run.notes == ("metrics.json: 1 unreadable line skipped",)
    assert run.curves["total_loss"] == [(19, 2.0), (99, 1.0)]


def test_curves_are_sorted_later_lines_win_and_only_finite_numbers_count(tmp_path):
    path = tmp_path / "metrics.json"
    lines = ['{"iteration": 9, "a": 1}', '{"iteration": 4, "a": 2}', '{"iteration": 9, "a": 3, "t": "x"}']
    path.write_text("\n".join([*lines, '{"iteration": 14, "a": NaN}', "[]", ""]))
    curves, notes = read_curves(path)
    assert curves == {"a": [(4, 2), (9, 3)]}
    assert notes == ["metrics.json: 1 unreadable line skipped"]
    assert read_curves(tmp_path / "none") == ({}, ["none is missing: no curves"])


def test_gpu_runs_name_the_gpus(make_run):
    machine = {"cpu": "C", "cores": 4, "gpus": ["G", "G"], "device": "cuda", "python": "3", "torch": "2"}
    assert read_run(make_run("gpu", machine=machine)).machine == "2 x G"
    assert read_run(make_run("cpu", machine={**machine, "device": "cpu"})).machine == "C, 4 cores"
