"""run.json: what a finished run was, how it was started, on what code and machine, and what it gave.

A stage writes it last, so a folder without it is a run that did not finish. The report, ``results/`` and
a study of ablations are made of these records.
"""

import functools
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from detectron2.config import CfgNode

from moco_det.config.rules import config_hash
from moco_det.utils.files import atomic_write
from moco_det.utils.machine import describe_machine, peak_memory_bytes

FILE_NAME = "run.json"
# Where weights are and how they want their input: what may differ between runs of one recipe.
INIT_KEYS = (
    "MODEL.WEIGHTS",
    "INPUT.FORMAT",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.STRIDE_IN_1X1",
    "INPUT.CHANNELS",
    "INPUT.RANGE",
)
RECORD_KEYS = (
    "stage",
    "config_hash",
    "recipe_hash",
    "command",
    "commit",
    "machine",
    "seed",
    "metrics",
    "seconds",
    "extra",
    "finished",
)

ROOT = Path(__file__).resolve().parents[2]
# report/ reads finished runs and cannot change them: another version of it makes no other run.
CODE = ("moco_det", "configs", ":(exclude)moco_det/report")


def code_commit(root: Path = ROOT, script: str = "") -> str:
    """Newest commit that changed the package, its configs or the script's project; ``+`` if they differ from it.

    ``"unknown"`` where ``root`` is not a checkout of the package (a wheel, or no git).

    Args:
        script: that was started; one in ``projects/NAME/`` brings the code of its own project.
    """
    code = list(CODE)
    projects = root.resolve() / "projects"
    if (file := Path(script).resolve()).is_relative_to(projects) and file != projects:
        project = f"projects/{file.relative_to(projects).parts[0]}"
        code += [project, f":(exclude){project}/README.md", f":(exclude){project}/tests"]
    try:
        commit = _git(root, "log", "-1", "--format=%h", "--abbrev=10", "--", *code)
        dirty = _git(root, "status", "--porcelain", "--", *code)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}{'+' if dirty else ''}" if commit else "unknown"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=True, timeout=30)
    return done.stdout.decode().strip()


@functools.cache
def running_commit() -> str:
    """:func:`code_commit` of this process, at the first call: the start of a run, which takes hours, calls it."""
    return code_commit(script=sys.argv[0])


def command_line(argv: list[str] | None = None) -> str:
    """The command, quoted for a shell, with paths below the working folder or beside it made relative."""
    first, *rest = sys.argv if argv is None else argv
    start = ["python", _relative(first)] if first.endswith(".py") else [os.path.basename(first)]
    return shlex.join([*start, *map(_relative, rest)])


def resume_command() -> str:
    """This process's command with ``--resume``, before the KEY VALUE pairs."""
    words = list(sys.argv)
    if "--resume" not in words:
        words.insert(2 if os.path.basename(words[0]) == "moco-det" else 1, "--resume")
    return command_line(words)


def _relative(word: str) -> str:
    here = os.getcwd()
    beside = os.path.dirname(here).rstrip(os.sep) + os.sep
    flag, equals, path = word.partition("=") if word.startswith("--") else ("", "", word)
    # Beside a folder that hangs on the root lies everything: such a path stays absolute.
    near = path.startswith(beside) and beside != os.sep
    return flag + equals + (os.path.relpath(path, here) if near else path)


def write_run_record(
    output_dir: str | os.PathLike,
    *,
    stage: str,
    cfg: CfgNode,
    metrics: Mapping[str, float],
    seconds: float,
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Write ``output_dir/run.json``, as the last thing a finished run does (main process only).

    Args:
        stage: ``"pretrain"``, ``"finetune"`` or ``"classify"``.
        cfg: the full config of the run.
        metrics: final numbers, flat, e.g. ``{"bbox/AP": 12.3}``; a value that is not finite becomes null.
        seconds: wall time of the whole run, over all its resumes.
        extra: plain values that the stage wants in the report (task, init, iterations, weights_sha256 …).

    Returns:
        the path of the file, an atomic write.
    """
    record = {
        "stage": stage,
        "config_hash": config_hash(cfg),
        "recipe_hash": config_hash(cfg, without=INIT_KEYS),
        "command": command_line(),
        "commit": running_commit(),
        "machine": describe_machine(cfg.MODEL.DEVICE),
        "seed": cfg.SEED,
        "metrics": {name: _finite(value) for name, value in metrics.items()},
        "seconds": float(seconds),
        "extra": {"peak_memory_gib": round(peak_memory_bytes(cfg.MODEL.DEVICE) / 2**30, 2), **(extra or {})},
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    path = Path(output_dir, FILE_NAME)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    return path


def _finite(value: float) -> float | None:
    # detectron2 gives NaN for a class without ground truth, and JSON has no NaN.
    value = float(value)
    return value if math.isfinite(value) else None


def read_run_record(output_dir: str | os.PathLike) -> dict:
    """The record of a finished run.

    Raises:
        ValueError: there is no run.json, it is not JSON, or it lacks a key.
    """
    path = Path(output_dir, FILE_NAME)
    if not path.is_file():
        raise ValueError(f"{path} is missing: the run in this folder did not finish (or is not a run)")
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error}); run it again") from error
    return check_record(record, path)


def check_record(record: object, path: Path) -> dict:
    """``record`` if it holds every key of a run record, else a ValueError that names the missing ones."""
    missing = [key for key in RECORD_KEYS if not isinstance(record, dict) or key not in record]
    if missing:
        raise ValueError(f"{path} is not a run record: it lacks {', '.join(missing)}")
    return record
