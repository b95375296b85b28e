"""tools/setup_venv.sh and .ci/run: they replace and remove the environments that they made, and no other."""

import os
import shutil
import subprocess

import pytest

from moco_det.testing import REPOSITORY

# An interpreter that will do, but whose `-m venv` fails: as far as a test without the network can go.
PYTHON = """#!/bin/sh
case "$1" in
  -c) exit 0 ;;
  -V) echo Python 3.11.0 ;;
  *) exit 7 ;;
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


def set_up(tmp_path, venv) -> subprocess.CompletedProcess:
    python = executable(tmp_path / "bin/python", PYTHON)
    command = [REPOSITORY / "tools/setup_venv.sh"]
    environment = {**os.environ, "VENV": str(venv), "PYTHON": python}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_setup_leaves_an_environment_that_it_did_not_make(tmp_path):
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("mine")
    done = set_up(tmp_path, venv)
    assert done.returncode == 1 and f"{venv} is there and was not made by this script" in done.stderr
    assert (venv / "pyvenv.cfg").read_text() == "mine"


@pytest.mark.parametrize("mark", ["made-by-setup_venv", "stamp-123-45"])
def test_setup_replaces_an_old_environment_of_its_own(tmp_path, mark):
    venv = tmp_path / "venv"
    venv.mkdir()
    for name in (mark, "old"):
        (venv / name).touch()
    assert set_up(tmp_path, venv).returncode == 7
    assert os.listdir(venv) == ["made-by-setup_venv"]


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
