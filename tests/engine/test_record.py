"""run.json says what a run was, without naming the host and without mixing up configs."""

import argparse
import json
import subprocess
import sys

import PIL
import pytest

from moco_det.config import get_cfg
from moco_det.engine import record as run_record
from moco_det.engine.launch import run_in_processes
from moco_det.engine.record import code_commit, command_line, config_hash, read_run_record, write_run_record


def write(folder, cfg=None, **more):
    arguments = {"stage": "finetune", "cfg": cfg or get_cfg(), "metrics": {"bbox/AP": 12.5}, "seconds": 60}
    return write_run_record(folder, **{**arguments, **more})


def changed(*pairs):
    cfg = get_cfg()
    cfg.merge_from_list(list(pairs))
    return cfg


def test_written_record_is_read_back(tmp_path):
    extra = {"task": "toy/faster_rcnn", "init": "moco", "iterations": 100}
    cfg = changed("SEED", 7)
    cfg.MODEL.DEVICE = "cpu"
    path = write(tmp_path, cfg, extra=extra)
    record = read_run_record(tmp_path)
    assert path == tmp_path / "run.json"
    assert (record["stage"], record["seed"], record["seconds"]) == ("finetune", 7, 60.0)
    assert record["metrics"] == {"bbox/AP": 12.5}
    assert 0.01 < record["extra"].pop("peak_memory_gib") < 1000
    assert record["extra"] == extra
    assert record["machine"]["cores"] >= 1 and record["machine"]["torch"]
    assert record["machine"]["pillow"] == PIL.__version__ and record["machine"]["torchvision"]
    assert record["finished"].endswith("+00:00")
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"], "a temporary file remained"


def test_a_number_that_is_not_finite_becomes_null(tmp_path):
    path = write(tmp_path, metrics={"bbox/AP-cat": float("nan"), "bbox/AP": 1})
    assert json.loads(path.read_text())["metrics"] == {"bbox/AP-cat": None, "bbox/AP": 1.0}


@pytest.mark.parametrize(
    "pair", [("SEED", 3), ("OUTPUT_DIR", "x"), ("MODEL.WEIGHTS", "a.pkl"), ("DATALOADER.NUM_WORKERS", 9)]
)
def test_config_hash_ignores_seed_place_and_machine(pair):
    assert config_hash(changed(*pair)) == config_hash(get_cfg())


@pytest.mark.parametrize("pair", [("SOLVER.BASE_LR", 0.5), ("SOLVER.MAX_ITER", 7), ("INPUT.FORMAT", "RGB")])
def test_config_hash_tells_configs_apart(pair):
    assert config_hash(changed(*pair)) != config_hash(get_cfg())


def test_recipe_hash_ignores_what_an_init_sets(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write(tmp_path / "a")
    write(tmp_path / "b", changed("INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]))
    a, b = read_run_record(tmp_path / "a"), read_run_record(tmp_path / "b")
    assert a["recipe_hash"] == b["recipe_hash"]
    assert a["config_hash"] != b["config_hash"]


def test_config_hash_leaves_the_config_alone():
    cfg = get_cfg()
    before = cfg.dump()
    config_hash(cfg)
    assert cfg.dump() == before


def test_command_is_quoted_and_relative(tmp_path, monkeypatch):
    here = tmp_path / "checkout"
    here.mkdir()
    monkeypatch.chdir(here)
    argv = [f"{here}/tools/train_net.py", "--init", "moco", f"--images={tmp_path}/data", "OUTPUT_DIR", "a b"]
    assert command_line(argv) == "python tools/train_net.py --init moco --images=../data OUTPUT_DIR 'a b'"
    assert command_line(["/somewhere/bin/moco-det-train", "/elsewhere/x"]) == "moco-det-train /elsewhere/x"


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_commit_follows_the_code_and_marks_changes(tmp_path):
    code = tmp_path / "moco_det" / "a.py"
    code.parent.mkdir()
    code.write_text("1")
    assert code_commit(tmp_path) == "unknown"
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "code")
    first = code_commit(tmp_path)
    (tmp_path / "README.md").write_text("text")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "words")
    assert code_commit(tmp_path) == first and not first.endswith("+"), "words are not code"
    code.write_text("2")
    assert code_commit(tmp_path) == first + "+"
    git(tmp_path, "commit", "-q", "-a", "-m", "other code")
    assert code_commit(tmp_path) not in (first, first + "+", "unknown")


def test_the_commit_of_a_projects_run_follows_its_project(tmp_path):
    """A core run's does not, nor that of another project's; words and tests of a project are not code."""
    files = {
        name: tmp_path / name
        for name in ("moco_det/a.py", "projects/A/pretrain.py", "projects/B/pretrain.py")
    }
    for file in files.values():
        file.parent.mkdir(parents=True)
        file.write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "code")
    scripts = ["", str(files["projects/B/pretrain.py"]), str(files["projects/A/pretrain.py"])]
    first = code_commit(tmp_path)
    assert [code_commit(tmp_path, script) for script in scripts] == 3 * [first]
    (tmp_path / "projects/A/README.md").write_text("text")
    (tmp_path / "projects/A/tests").mkdir()
    (tmp_path / "projects/A/tests/test_a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "words")
    assert code_commit(tmp_path, scripts[2]) == first
    files["projects/A/pretrain.py"].write_text("2")
    assert [code_commit(tmp_path, script) for script in scripts] == [first, first, first + "+"]
    git(tmp_path, "commit", "-q", "-a", "-m", "other code")
    *others, of_a = [code_commit(tmp_path, script) for script in scripts]
    assert others == [first, first] and of_a not in (first, first + "+", "unknown")
    files["moco_det/a.py"].write_text("2")
    assert code_commit(tmp_path, scripts[2]) == of_a + "+", "the core is every run's code"


def test_commit_inside_a_foreign_checkout_is_unknown(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "mine.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "mine")
    assert code_commit(tmp_path) == "unknown"


def test_a_run_asks_git_once_at_its_start(monkeypatch, tmp_path):
    """What is committed while it trains is not its code; an import asks nothing."""
    commits = iter(("first", "second"))
    monkeypatch.setattr(run_record, "code_commit", lambda script: next(commits))
    run_record.running_commit.cache_clear()
    try:
        args = argparse.Namespace(num_gpus=0, num_machines=1, machine_rank=0, dist_url="auto")
        run_in_processes(lambda: next(commits), args)
        write(tmp_path)
        assert read_run_record(tmp_path)["commit"] == "first"
    finally:
        run_record.running_commit.cache_clear()
    code = "import subprocess; subprocess.run = None; from moco_det.pretrain import command"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_missing_broken_and_foreign_records_are_refused(tmp_path):
    with pytest.raises(ValueError, match="did not finish"):
        read_run_record(tmp_path)
    file = tmp_path / run_record.FILE_NAME
    file.write_text('{"stage": "fine')
    with pytest.raises(ValueError, match="not readable JSON"):
        read_run_record(tmp_path)
    file.write_text('{"stage": "finetune"}')
    with pytest.raises(ValueError, match="lacks config_hash, recipe_hash"):
        read_run_record(tmp_path)
    file.write_text("[1]")
    with pytest.raises(ValueError, match="not a run record"):
        read_run_record(tmp_path)
