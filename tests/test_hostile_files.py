"""Untrusted files: nothing of them runs, nothing is written, and one sentence says what is wrong."""

import ast
import contextlib
import logging
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from moco_det.engine.checkpoint_files import read_checked
from moco_det.finetune.command import main as finetune
from moco_det.finetune.safe_checkpointer import SafeCheckpointer
from moco_det.model_zoo import get_config_file
from moco_det.pretrain.command import main as pretrain
from moco_det.pretrain.stats import main as stats
from moco_det.testing.core import REPOSITORY, write_random_images
from moco_det.weights.sources import read_checkpoint

# ---- the code: what could run a file's content or a name, and the few places that may ------------------------

DANGEROUS = {
    *("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "torch.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "extractall", "extract", "unpack_archive"),
    *("merge_from_file", "shell=True", "allow_unsafe=True", "allow_pickle=True", "weights_only=False"),
}
MAY = {
    "moco_det/weights/sources/reading.py": {
        "weights_only=False",
        "torch.load",
        "pickle.load",
    },  # --trust-pickle
    "moco_det/testing/planted.py": {"exec"},  # the package's own lines
    "moco_det/testing/core.py": {"weights_only=False", "torch.load"},  # what a test's own process wrote
}


def dangerous_calls(code: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name, short = ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]
        arguments = {f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords}
        found |= arguments & DANGEROUS
        safe = name == "torch.load" and "weights_only=True" in arguments
        if not safe:
            found |= {name, short if "." in name and short in ("extractall", "extract") else name} & DANGEROUS
            found |= {short} & {"unpack_archive", "merge_from_file"}
    return found


def test_no_code_runs_what_a_file_or_a_name_says():
    files = [*REPOSITORY.glob("moco_det/**/*.py"), *REPOSITORY.glob("tools/*.py")]
    files += [path for path in REPOSITORY.glob("projects/**/*.py") if "tests" not in path.parts]
    found = {str(path.relative_to(REPOSITORY)): dangerous_calls(path.read_text()) for path in files}
    assert {path: calls for path, calls in found.items() if calls} == MAY


@pytest.mark.parametrize(
    "code, calls",
    [
        ("torch.load(f)", {"torch.load"}),
        ("torch.load(f, weights_only=True)", set()),
        ("torch.load(f, weights_only=False)", {"torch.load", "weights_only=False"}),
        ("subprocess.run(line, shell=True)", {"shell=True"}),
        ("tarfile.open(f).extractall(folder)", {"extractall"}),
        ("cfg.merge_from_file(f)", {"merge_from_file"}),
        ("model.eval()", set()),
        ("eval(text)", {"eval"}),
    ],
)
def test_the_search_sees_them(code, calls):
    assert dangerous_calls(code) == calls


# ---- pickles ----------------------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return exec, ("open('touched', 'w')",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, which must hold nothing new in the end; a fresh attack would show here."""
    monkeypatch.chdir(tmp_path)
    exec("open('touched', 'w')")
    Path("touched").unlink()
    write_random_images(tmp_path / "images", 16)
    loggers = [logging.getLogger(name) for name in ("moco_det", "detectron2", "fvcore")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield tmp_path
    for logger, state in zip(loggers, before, strict=True):  # a run points them at its folder
        logger.handlers[:], logger.propagate, logger.level = state
    assert not Path("touched").exists()


def malicious_weights(path: Path) -> str:
    content = {"model": {"stem.conv1.weight": Malicious()}, "__author__": "x", "matching_heuristics": True}
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return str(path)


def error_of(command, arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        command(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    return said[-1]


PRETRAIN = ("--config-file", "Pretrain/moco_v2_R_50_200ep", "--images", "images", "--num-gpus", "0")
TOY = ("MODEL.MOCO.QUEUE_SIZE", "8", "SOLVER.IMS_PER_BATCH", "8", "MODEL.ENCODER.BN_GROUP_SIZE", "8")


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pth"])
def test_malicious_weights_do_not_start_a_run(folder, capsys, toy_recipe, name):
    weights = malicious_weights(folder / name)
    said = error_of(finetune, [*toy_recipe, "MODEL.WEIGHTS", weights], capsys)
    assert f"tools/convert_to_d2.py --trust-pickle {weights} backbone.pkl" in said
    said = error_of(pretrain, [*PRETRAIN, *TOY, "MODEL.WEIGHTS", weights], capsys)
    assert f"tools/convert_to_d2.py --trust-pickle {weights} backbone.pkl" in said


@pytest.fixture
def toy_recipe(monkeypatch):
    """A recipe whose data sets are not looked for: the weights come after them."""
    monkeypatch.setattr("moco_det.finetune.preflight.check_datasets", lambda *_: None)
    monkeypatch.setattr("moco_det.finetune.preflight.check_evaluator", lambda *_: None)
    return ("--config-file", "toy/faster_rcnn_R_18_FPN", "--num-gpus", "0")


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pth"])
def test_detectron2_is_not_handed_a_malicious_file(folder, name):
    """It is not, also where the check before was bypassed: an exchanged file, a resumed run."""
    checkpointer = SafeCheckpointer(torch.nn.Linear(1, 1), str(folder))
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        checkpointer.load(malicious_weights(folder / name))


def test_detectron2_is_handed_the_same_dict(tmp_path):
    """The dict is the same for a file of its own, of Caffe2, and of torch."""
    for content, expected in (
        ({"model": {"weight": 1.0}, "__author__": "a"}, {"model": {"weight": 1.0}, "__author__": "a"}),
        (
            {"blobs": {"conv1_w": 1.0, "conv1_w_momentum": 2.0}},
            {"model": {"conv1_w": 1.0}, "__author__": "Caffe2", "matching_heuristics": True},
        ),
    ):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(content))
        checkpointer = SafeCheckpointer(torch.nn.Linear(1, 1), str(tmp_path))
        assert checkpointer._load_file(str(tmp_path / "w.pkl")) == expected
    model = torch.nn.Linear(2, 1)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    other = torch.nn.Linear(2, 1)
    SafeCheckpointer(other, str(tmp_path)).load(str(tmp_path / "w.pth"))
    assert torch.equal(model.weight, other.weight)


# ---- YAML -------------------------------------------------------------------------------------------------------

HOSTILE_YAML = (
    "!!python/object/apply:builtins.exec [\"open('touched', 'w')\"]",
    "MODEL: !!python/object/new:os.system [touch touched]",
    "MODEL:\n  WEIGHTS: !!python/name:os.system",
)


@pytest.mark.parametrize("content", [*HOSTILE_YAML, "MODEL: [", "", "just words", "_BASE_: 3", "\x00"])
def test_hostile_yaml_is_refused_in_one_sentence(folder, capsys, content):
    """It is refused as a recipe, under a recipe, over one, and as an init."""
    Path("evil.yaml").write_text(content)
    Path("child.yaml").write_text("_BASE_: evil.yaml\nSEED: 1\n")
    for command, arguments in (
        (pretrain, ["--config-file", "evil.yaml", "--images", "images"]),
        (pretrain, ["--config-file", "child.yaml", "--images", "images"]),
        (pretrain, [*PRETRAIN, "--overlay", "evil.yaml"]),
        (finetune, ["--config-file", "evil.yaml"]),
        (finetune, ["--config-file", "toy/faster_rcnn_R_18_FPN", "--init", "evil.yaml"]),
    ):
        said = error_of(command, arguments, capsys)
        assert "evil.yaml" in said or "child.yaml" in said


def test_values_on_the_command_line_are_plain(folder, capsys):
    said = error_of(
        pretrain, [*PRETRAIN, "SOLVER.BASE_LR", "__import__('os').system('touch touched')"], capsys
    )
    assert "SOLVER.BASE_LR" in said


def test_the_config_of_a_run_is_read_safely(folder, capsys):
    Path("run").mkdir()
    Path("run/config.yaml").write_text(HOSTILE_YAML[0])
    torch.save({"iteration": 0}, "run/model_0000000.pth")
    said = error_of(
        pretrain, [*PRETRAIN, *TOY, "--resume"][:6] + ["--resume", *TOY, "OUTPUT_DIR", "run"], capsys
    )
    assert "config.yaml" in said


# ---- archives and names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_checked, read_checkpoint])
def test_an_archive_writes_nowhere(folder, read):
    """A torch file is a zip file; its records are read in place, whatever they are called."""
    inside = folder / "inside"
    inside.mkdir()
    torch.save({"a": torch.ones(2)}, inside / "w.pth")
    with zipfile.ZipFile(inside / "w.pth", "a") as archive:
        archive.writestr("../../evil", "x")
        archive.writestr("/tmp/moco_det_evil", "x")
    before = sorted(folder.rglob("*"))
    with contextlib.suppress(ValueError):
        read(inside / "w.pth")
    assert sorted(folder.rglob("*")) == before and not Path("/tmp/moco_det_evil").exists()


def test_names_of_images_reach_no_shell(folder, capsys):
    """Names that a shell would run, or that look like options or formats."""
    for place, name in enumerate(
        ("$(touch touched).jpg", "; touch touched;.jpg", "-rf.jpg", "%s{0}.jpg", "ä\n.jpg")
    ):
        (folder / "images" / f"{place:03d}.jpg").rename(folder / "images" / name)
    stats(["--images", "images", "--num-workers", "0", "--output", "stats.yaml"])
    options = (
        "MODEL.ENCODER.ARCH",
        "resnet18",
        "INPUT.VIEWS.SIZE",
        "32",
        "SOLVER.EPOCHS",
        "1",
        "OUTPUT_DIR",
        "run",
    )
    pretrain([*PRETRAIN, *TOY, *options, "DATALOADER.NUM_WORKERS", "0"])
    assert Path("run/model_final.pth").exists()


def test_recipes_of_this_package_have_no_tags():
    for path in Path(get_config_file("Pretrain/moco_v2_R_50_200ep")).parents[1].rglob("*.yaml"):
        assert "!!" not in path.read_text(), path
