"""tools/setup_venv.sh and .ci/run: they replace and remove the environments that they made, and no other."""

import os
import shutil
import subprocess

import pytest

from moco_det.testing.core import REPOSITORY

# An interpreter that writes down what it is called with; `-m venv` makes such an environment. What matches
# WITHOUT fails.
PYTHON = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
  *$WITHOUT*) exit 7 ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-V") echo Python 3.11.0 ;;
  *sysconfig*) echo "$SITE" ;;
esac
"""
MAKE = """#!/bin/sh
mkdir -p "$VENV/bin"
echo "$1 $VENV" >> made
exit $EXIT_CODE
"""


def executable(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def set_up(tmp_path, venv, without, **environment) -> subprocess.CompletedProcess:
    """Run the script as far as it goes ``without`` the network; its calls of Python are in tmp_path/log."""
    python = executable(tmp_path / "bin/python", PYTHON)
    own = {"VENV": str(venv), "PYTHON": python, "WITHOUT": without, "SITE": str(tmp_path / "site")}
    environment = {**os.environ, "LOG": str(tmp_path / "log"), **own, **environment}
    script = REPOSITORY / "tools/setup_venv.sh"
    return subprocess.run([script], env=environment, capture_output=True, text=True)


def test_setup_leaves_an_environment_that_it_did_not_make(tmp_path):
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("mine")
    done = set_up(tmp_path, venv, without="nothing")
    assert done.returncode == 1 and f"{venv} is there and was not made by this script" in done.stderr
    assert (venv / "pyvenv.cfg").read_text() == "mine"


@pytest.mark.parametrize("mark", ["made-by-setup_venv", "stamp-123-45"])
def test_setup_replaces_an_old_environment_of_its_own(tmp_path, mark):
    venv = tmp_path / "venv"
    venv.mkdir()
    for name in (mark, "old"):
        (venv / name).touch()
    assert set_up(tmp_path, venv, without="-m venv").returncode == 7
    assert os.listdir(venv) == ["made-by-setup_venv"]


WHEEL, UPSTREAM = "requirements-detectron2.txt", "git+https://github.com/facebookresearch/detectron2.git"
PINNED = f"{UPSTREAM}@a59f05630a8f205756064244bf5beb8661f96180"


@pytest.mark.parametrize(
    "chosen, without, sources, works",
    [
        ("wheel", "nothing", [WHEEL], True),
        ("wheel", WHEEL, [WHEEL, PINNED], True),
        ("wheel", "install*detectron2", [WHEEL, PINNED], False),
        ("source", "nothing", [PINNED], True),
        ("git", "nothing", [UPSTREAM], True),
        ("/my/detectron2", "nothing", ["/my/detectron2"], True),
        ("/my/detectron2", "/my/detectron2", ["/my/detectron2"], False),
    ],
)
def test_where_detectron2_comes_from(tmp_path, chosen, without, sources, works):
    (tmp_path / "site/detectron2").mkdir(parents=True)
    (tmp_path / "site/tools").mkdir()
    (tmp_path / "site/detectron2/_C.cpython-310.so").touch()
    done = set_up(tmp_path, tmp_path / "venv", without, DETECTRON2=chosen)
    assert (done.returncode == 0) == works, done.stderr
    calls = (tmp_path / "log").read_text().splitlines()
    installs = [call.split()[-1] for call in calls if " install " in call and "detectron2" in call]
    assert installs == sources
    assert ("the pinned wheel of detectron2 cannot be had" in done.stderr) == (len(sources) == 2)
    cleaned = chosen == "wheel" and without == "nothing"
    assert (tmp_path / "site/tools").exists() == (not cleaned)
    assert (tmp_path / "site/detectron2/_C.cpython-310.so").exists() == (not cleaned)
    assert any(path.name.startswith("stamp-") for path in (tmp_path / "venv").iterdir()) == works


@pytest.mark.parametrize("exit_code", [0, 3])
def test_ci_removes_its_own_environment_alone(tmp_path, exit_code):
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / ".venv").mkdir()
    executable(tmp_path / "bin/make", MAKE)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "EXIT_CODE": str(exit_code), "VENV": str(tmp_path / ".venv")}
    assert subprocess.run([tmp_path / ".ci/run"], env=environment).returncode == exit_code
    targets, venvs = zip(
        *(line.split() for line in (tmp_path / "made").read_text().splitlines()), strict=True
    )
    assert targets == (("test", "lint") if exit_code == 0 else ("test",))
    assert len(set(venvs)) == 1 and os.path.dirname(venvs[0]) == str(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".ci", ".venv", "bin", "made"]
