"""Ctrl-C ends each kind of command in one sentence that says how to resume, with code 130; no process stays."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moco_det.testing.core import REPOSITORY, write_random_images
from moco_det.utils import children
from moco_det.utils.errors import INTERRUPTED, user_errors
from moco_det.utils.progress import BAR_POSITION

SMALL = (
    *("DATALOADER.NUM_WORKERS", "2", "SOLVER.IMS_PER_BATCH", "8", "MODEL.MOCO.QUEUE_SIZE", "16"),
    *("MODEL.ENCODER.BN_GROUP_SIZE", "8", "SOLVER.EPOCHS", "1000", "SOLVER.LOG_PERIOD", "1"),
)


def processes_of(group: int) -> list[str]:
    """The command lines of the living processes of a process group, as /proc has them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(own) == group and state != "Z":
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended meanwhile
            continue
    return found


def interrupted(words, ready, folder, everyone: bool = True) -> str:
    """Start a command, send SIGINT once ``ready()``, and check how it ends.

    Args:
        everyone: to its whole process group, as a terminal does; else to the command alone.

    Returns:
        what it said on stderr.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *words]
    with open(folder / "stderr", "w") as errors, open(folder / "stdout", "w") as output:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=errors, start_new_session=True
        )
    try:
        end = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert ready() and process.poll() is None, (folder / "stderr").read_text()
        (os.killpg if everyone else os.kill)(process.pid, signal.SIGINT)
        code = process.wait(60)
        said = (folder / "stderr").read_text()
        assert code == INTERRUPTED, said
        assert "Traceback" not in said and "KeyboardInterrupt" not in said, said
        end = time.monotonic() + 5  # multiprocessing's tracker of resources sees that all are gone, and goes
        while processes_of(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert not processes_of(process.pid)
        assert len(re.findall("^interrupted: ", said, re.MULTILINE)) == 1
        return said.splitlines()[-1]
    finally:
        if processes_of(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def sigint_is_not_ignored():
    """Programs inherit that a signal is ignored, as a shell does for what it starts with ``&``."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_random_images(folder, 24)
    return folder


def test_pretraining_with_workers(images, tmp_path):
    output, log = tmp_path / "out", tmp_path / "out/metrics.json"
    words = ["tools/pretrain_moco.py", "--config-file", "toy/pretrain_moco_v2_R_18", "--images", str(images)]
    words += ["--num-gpus", "0", *SMALL, "OUTPUT_DIR", str(output)]
    said = interrupted(words, lambda: log.is_file() and log.stat().st_size, tmp_path)
    assert said.startswith("interrupted: resume with: python tools/pretrain_moco.py --resume --config-file ")
    assert said.endswith(f" OUTPUT_DIR {output}")


def test_packing(tmp_path):
    write_random_images(tmp_path / "images", 300, size=400)
    unfinished = tmp_path / "packed.unfinished"
    words = [
        "tools/pack_images.py",
        "--images",
        str(tmp_path / "images"),
        "--output",
        str(tmp_path / "packed"),
    ]
    words += ["--num-workers", "2", "--shard-mib", "1"]
    said = interrupted(words, lambda: list(unfinished.glob(".images-*")), tmp_path)
    assert said == "interrupted: the same command resumes it at the last whole shard"


def test_rendering(tmp_path):
    words = ["tools/make_toyworld.py", "--output", str(tmp_path / "world"), "--num-unlabeled", "3000"]
    said = interrupted(words, lambda: list(tmp_path.glob(".world-*/world/unlabeled/*")), tmp_path)
    assert said == "interrupted: nothing was kept; the same command starts again"
    assert not list(tmp_path.glob("*world*"))


def test_a_command_with_commands_of_its_own(tmp_path):
    """The first step of the demonstration renders by processes of its own."""
    output = tmp_path / "demo"
    words = ["tools/run_demo.py", "--output", str(output), "--num-gpus", "0"]
    said = interrupted(words, lambda: list(output.glob("datasets/.*/*/unlabeled/*")), tmp_path)
    assert said == "interrupted: the same command resumes; what is finished is skipped"


def test_side_by_side(tmp_path):
    """Steps in threads: no further one starts, and those that wait for nothing are ended."""
    code = f"""
from pathlib import Path
from moco_det.benchmark.steps import Step, run_steps
from moco_det.utils.errors import user_errors
folder = Path({str(tmp_path)!r})
script = folder / "step.py"
script.write_text("import sys, time; open(sys.argv[1], 'w').close(); time.sleep(600)")
steps = [Step(str(n), (str(script), str(folder / f"started_{{n}}")), folder / "none", True) for n in range(4)]
user_errors(run_steps)(steps, folder / "logs", jobs=2, keep_going=True)
"""
    (tmp_path / "main.py").write_text(code)
    said = interrupted(
        [str(tmp_path / "main.py")], lambda: len(list(tmp_path.glob("started_*"))) == 2, tmp_path, False
    )
    assert said.endswith("what is finished is skipped") and len(list(tmp_path.glob("started_*"))) == 2


def test_while_it_imports(tmp_path):
    """Nothing was done yet, and the sentence says so."""
    package = tmp_path / "torch"
    package.mkdir()
    importing = tmp_path / "importing"
    (package / "__init__.py").write_text(f"import time; open({str(importing)!r}, 'w'); time.sleep(60)")
    (tmp_path / "main.py").write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from moco_det_cli.command import run; run('report', ['x'])"
    )
    said = interrupted([str(tmp_path / "main.py")], importing.exists, tmp_path)
    assert said == "interrupted: nothing was done yet"


def test_a_process_that_does_not_end_is_killed(monkeypatch, capsys):
    """It ignores SIGINT, as a program that hangs would."""
    monkeypatch.setattr(children, "PATIENCE", 0.5)
    code = "import signal, time; signal.signal(2, 1); print(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    monkeypatch.setattr(children, "_running", {process})

    @user_errors
    def work():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == INTERRUPTED and process.wait(5) == -signal.SIGKILL
    assert capsys.readouterr().err == "interrupted: nothing was kept; the same command starts again\n"
    process.stdout.close()


def test_a_step_leaves_the_sentence_to_the_command_that_started_it(monkeypatch, capsys):
    monkeypatch.setenv(BAR_POSITION, "0")

    @user_errors
    def work():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        work()
    assert capsys.readouterr().err == ""
