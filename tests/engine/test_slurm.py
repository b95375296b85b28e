"""The job script, with stand-ins for SLURM's commands on PATH: what runs, with what, and what is queued again."""

import json
import os
import subprocess
import sys

import pytest

from moco_det.engine.slurm import main

FAKES = {
    # Runs the job, again and again as long as it is queued.
    "sbatch": """
        export SLURM_JOB_ID=7 SLURM_JOB_NODELIST='a[1-2]' SLURM_NNODES=$NODES SLURM_RESTART_COUNT=0
        while :; do
            rm -f queued
            bash "$1"
            echo $? >> codes
            [ -e queued ] || break
            SLURM_RESTART_COUNT=$((SLURM_RESTART_COUNT + 1))
        done""",
    # One task a machine; the highest exit code.
    "srun": """
        worst=0
        for node in $(seq 0 $((NODES - 1))); do SLURM_NODEID=$node "$@" & tasks="$tasks $!"; done
        for task in $tasks; do wait $task; code=$?; [ $code -gt $worst ] && worst=$code; done
        exit $worst""",
    "scontrol": """
        if [ "$1" = requeue ]; then touch queued; else echo 127.0.0.1; echo second; fi""",
}
# A run that ends with the next of the given codes and leaves its command line.
TOOL = """
import json, os, sys
rank = sys.argv[sys.argv.index("--machine-rank") + 1]
log = f"calls_{rank}"
before = open(log).read().splitlines() if os.path.exists(log) else []
open(log, "a").write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(json.loads(os.environ["CODES"])[len(before)])
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, body in FAKES.items():
        (bin_folder / name).write_text("#!/bin/bash\n" + body)
        (bin_folder / name).chmod(0o755)
    (tmp_path / "a folder").mkdir()
    monkeypatch.chdir(tmp_path / "a folder")
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    (tmp_path / "a folder/tool.py").write_text(TOOL)
    return tmp_path / "a folder"


def submit(monkeypatch, codes, *options, nodes=1, command=("--config-file", "x.yaml", "SEED", "1")):
    monkeypatch.setenv("CODES", json.dumps(codes))
    monkeypatch.setenv("NODES", str(nodes))
    main(["--nodes", str(nodes), *options, "--", "tool.py", *command])


def calls(cluster, rank=0) -> list[list[str]]:
    return [json.loads(line) for line in (cluster / f"calls_{rank}").read_text().splitlines()]


def test_a_run_that_ends_runs_once_on_each_machine(cluster, monkeypatch):
    submit(monkeypatch, [0], "--gpus", "4", nodes=2)
    for rank in (0, 1):
        (call,) = calls(cluster, rank)
        expected = ["--machine-rank", str(rank), "--num-machines", "2", "--dist-url", "tcp://127.0.0.1:20007"]
        assert call == [*expected, "--num-gpus", "4", "--resume", "--config-file", "x.yaml", "SEED", "1"]
    assert not (cluster / "queued").exists() and (cluster / "codes").read_text() == "0\n"


@pytest.mark.parametrize(
    "codes, ran",
    [([75, 75, 0], 3), ([69, 0], 2), ([2], 1), ([1], 1), ([75, 2], 2)],
    ids=["stopped", "lost a process", "a mistake", "a crash", "then a mistake"],
)
def test_what_was_cut_is_queued_again_and_a_mistake_is_not(cluster, monkeypatch, codes, ran):
    submit(monkeypatch, codes, nodes=2)
    assert len(calls(cluster)) == len(calls(cluster, 1)) == ran
    assert (cluster / "codes").read_text().split() == [str(code) for code in codes]


def test_it_is_not_queued_for_ever(cluster, monkeypatch):
    submit(monkeypatch, [75] * 9, "--requeues", "3")
    assert len(calls(cluster)) == 4


def test_words_reach_the_tool_as_they_are(cluster, monkeypatch):
    words = (
        "--images",
        "my images; touch x",
        "A",
        "$(touch x)",
        "B",
        'it\'s "so"',
        "C",
        "`touch x`",
        "D",
        "--",
    )
    submit(monkeypatch, [0], command=words)
    assert calls(cluster)[0][-len(words) :] == list(words)
    assert not (cluster / "x").exists()


def test_what_the_scheduler_is_told(cluster, monkeypatch, capsys):
    submit(
        monkeypatch,
        [],
        "--dry-run",
        "--sbatch=--qos=low",
        "--warning",
        "90",
        "--time",
        "1:00:00",
        "--gpus",
        "0",
    )
    script = (cluster / "slurm_job.sh").read_text()
    for line in (
        "--signal=USR1@90",
        "--requeue",
        "--open-mode=append",
        "--qos=low",
        "--time=1:00:00",
        "--nodes=1",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "gpus-per-node" not in script and not (cluster / "calls_0").exists()
    subprocess.run(["bash", "-n", "slurm_job.sh"], check=True)
    assert os.access("slurm_job.sh", os.X_OK) and "Wrote slurm_job.sh" in capsys.readouterr().out
    assert sys.executable in script


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "the command begins with nothing"),
        (("--", "nowhere.py"), "the command begins with 'nowhere.py'"),
        (("--", "tool.py", "--resume"), "the job itself gives --resume"),
        (("--", "tool.py", "--num-gpus=8"), "the job itself gives --num-gpus=8"),
        (("--name", "a\n#SBATCH --wrap=x", "--", "tool.py"), "has more than one line"),
    ],
)
def test_what_cannot_be_a_job_is_refused(cluster, capsys, words, message):
    with pytest.raises(SystemExit):
        main(list(words))
    assert message in capsys.readouterr().err


def test_without_slurm_one_sentence_says_so(cluster, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit):
        main(["--", "tool.py"])
    assert "there is no sbatch here" in capsys.readouterr().err
