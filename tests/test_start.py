"""How commands start: help and refusals come before torch and detectron2, from one definition of options."""

import inspect
import json
import re
import subprocess
import sys

import pytest

from moco_det.benchmark.demo import SCALES
from moco_det.benchmark.suites import SUITES
from moco_det.convert.official import OFFICIAL
from moco_det.convert.targets import TARGETS
from moco_det.data.packed_images import Settings
from moco_det.model_zoo import ablations
from moco_det.model_zoo.tasks import TASKS
from moco_det.speed.command import PARTS
from moco_det.testing.core import REPOSITORY
from moco_det.toyworld.make import make_toyworld
from moco_det.weights.sources import FAMILIES
from moco_det.weights.sources.families import PREPROCESSINGS
from moco_det_cli.command import COMMANDS
from moco_det_cli.parsers import choices

TOOLS = {  # but those for contributors, which are no commands
    found[1]: path
    for path in (REPOSITORY / "tools").glob("*.py")
    if (found := re.search(r'    run\("([\w-]+)"\)', path.read_text()))
}
# Prints, at its end, which of the packages that take time this process has imported.
CODE = """
import atexit, json, runpy, sys
heavy = ("torch", "torchvision", "detectron2", "numpy", "moco_det")
atexit.register(lambda: print(json.dumps([name for name in heavy if name in sys.modules])))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(*words: str) -> tuple[subprocess.CompletedProcess, str, list[str]]:
    """Run a script; what it printed, and the heavy packages that it imported."""
    command = [sys.executable, "-W", "ignore", "-c", CODE, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    *shown, imported = done.stdout.splitlines()
    return done, "\n".join(shown), json.loads(imported)


@pytest.fixture(scope="module")
def moco_det_script(tmp_path_factory):
    """What the console script ``moco-det`` is."""
    path = tmp_path_factory.mktemp("bin") / "moco-det"
    path.write_text("from moco_det_cli.command import main\nmain()\n")
    return str(path)


def test_every_command_has_a_tool():
    assert sorted(TOOLS) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_at_hand(name, moco_det_script):
    """The same from the tool and from the command, and without what takes seconds to import."""
    done, shown, imported = start(str(TOOLS[name]), "--help")
    assert done.returncode == 0 and shown.startswith(f"usage: moco-det {name} ") and not imported
    assert start(moco_det_script, name, "--help")[1:] == (shown, [])


@pytest.mark.parametrize("words", [("benchmark", "own", "--help"), ("benchmark", "--suite", "own", "--help")])
def test_help_of_a_command_of_two_words(words, moco_det_script):
    done, shown, imported = start(moco_det_script, *words)
    assert shown.startswith("usage: moco-det benchmark own ") and not imported


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_option_is_refused_at_once(name, moco_det_script):
    done, _, imported = start(moco_det_script, name, "--no-such-option")
    assert done.returncode == 2 and f"moco-det {name}" in done.stderr and not imported


@pytest.mark.parametrize(
    "words, message",
    [
        (("pretrain", "--config-file", "Pretrain/moco_v2_R_5"), "closest match: 'Pretrain/moco_v2_R_50_"),
        (("train", "--init", "randon"), "closest match: 'random'"),
        (("pretrain", "--exclude", "none.txt"), "--exclude 'none.txt' does not exist (looked in"),
        (("pretrain", "--overlay", "none.yaml"), "--overlay 'none.yaml' does not exist (looked in"),
        (("convert", "none.pth", "out.pkl"), "IN 'none.pth' does not exist (looked in"),
        (("inspect", "none.pth"), "FILE 'none.pth' does not exist (looked in"),
        (("convert", "IN", "out.pkl", "--to", "nowhere"), "invalid choice: 'nowhere'"),
        (("speed", "--part", "lader"), "invalid choice: 'lader'"),
        (("benchmark", "--suite", "tiny"), "invalid choice: 'tiny'"),
    ],
)
def test_what_is_not_there_is_refused_at_once(words, message, moco_det_script):
    done, _, imported = start(moco_det_script, *words)
    assert done.returncode == 2 and message in done.stderr and not imported
    assert "Traceback" not in done.stderr


def test_a_right_command_gets_its_words(moco_det_script):
    """The other side of the measurement: work does import, and options reach the command."""
    done, shown, imported = start(moco_det_script, "report", "--suite", "x")
    assert done.returncode == 2 and "error: nothing to do: give run folders" in done.stderr
    assert "torch" in imported


@pytest.mark.parametrize(
    "kept, table",
    [
        (choices.OFFICIAL, OFFICIAL),
        (choices.FAMILIES, [family.name for family in FAMILIES]),
        (choices.PREPROCESSINGS, PREPROCESSINGS),
        (choices.TARGET_ENDINGS, TARGETS),
        (choices.TASKS, [task.name for task in TASKS]),
        (choices.ABLATIONS, ablations.ABLATIONS),
        (choices.ABLATION_SCALES, ablations.SCALES),
        (choices.SUITES, SUITES),
        (choices.DEMO_SCALES, SCALES),
        (choices.SPEED_PARTS, PARTS),
    ],
)
def test_names_are_those_of_the_tables(kept, table):
    assert tuple(kept) == tuple(table)


def test_defaults_are_those_of_the_functions():
    parameters = inspect.signature(make_toyworld).parameters
    assert choices.TOYWORLD == {name: parameters[name].default for name in choices.TOYWORLD}
    assert Settings(**choices.PACKED) == Settings()
