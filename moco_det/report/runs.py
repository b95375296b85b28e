"""Finds run folders and reads each into a plain Run: its record, its curves, and what was odd about it.

A folder that started a run but holds no readable run.json becomes an Incomplete: named, never averaged.
"""

import json
import math
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from moco_det.engine.record import FILE_NAME, read_run_record
from moco_det.model_zoo.tasks import main_metric
from moco_det.utils.metric_names import ITERATION, with_todays_names

# In the folder of a benchmark: what it runs, and where each run's folder is.
PLAN = "benchmark.json"
# What only a run folder holds: one of them without a run.json is a run that did not finish.
TRACES = ("metrics.json", "config.yaml")
# A curve is (iteration, value) pairs, sorted, one value an iteration.
Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Run:
    """One finished run.

    ``weights`` identifies what the backbone started from: the first digits of the file's sha256, or the name
    of the init where no file was recorded.
    """

    folder: Path
    stage: str
    task: str
    init: str
    weights: str
    iterations: int
    seed: int
    config_hash: str
    recipe_hash: str
    commit: str
    machine: str
    minutes: float
    metrics: dict[str, float]
    curves: dict[str, Curve]
    record: dict
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> str | None:
        """The metric by which it is compared with others; None for pre-training."""
        return main_metric(self.task, self.metrics) if self.stage == "finetune" else None


@dataclass(frozen=True)
class Incomplete:
    """A folder that is no finished run, and why.

    ``row`` is the (task, iterations, init) whose mean it is missing in, where a benchmark's plan says so.
    """

    folder: Path
    reason: str
    row: tuple[str, int, str] | None = None


def find_runs(paths: list[str | os.PathLike]) -> tuple[list[Run], list[Incomplete]]:
    """All runs in the given folders and their sub-folders, in the order of their paths.

    Raises:
        ValueError: a folder does not exist, or none of them holds a run, finished or not.
    """
    folders, planned, extras = [], {}, {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(f"run folder {str(path)!r} does not exist (looked in {os.getcwd()!r})")
        planned |= read_plan(path)
        extras |= read_extras(path)
        folders += sorted(Path(where) for where, _, files in os.walk(path) if {FILE_NAME, *TRACES} & {*files})
    unique = {folder.resolve(): folder for folder in folders}
    if not unique and not planned:
        searched = ", ".join(repr(str(path)) for path in paths)
        raise ValueError(
            f"no run found in {searched} or below: a run folder holds {FILE_NAME} (finished) or {TRACES[0]} "
            "(started); give the OUTPUT_DIR of tools/pretrain_moco.py or tools/train_net.py"
        )
    runs, incomplete = [], []
    for place, folder in unique.items():
        row = planned.pop(place, None)
        try:
            run = read_run(folder)
            run.record["extra"].update(extras.get(place, {}))
            runs.append(run)
        except ValueError as error:
            incomplete.append(Incomplete(folder, str(error), row))
        except (TypeError, KeyError, AttributeError) as error:
            incomplete.append(Incomplete(folder, f"{FILE_NAME} has an unexpected form ({error!r})", row))
    incomplete += [Incomplete(folder, "planned, not started", row) for folder, row in planned.items()]
    return runs, incomplete


def read_plan(folder: Path) -> dict[Path, tuple[str, int, str]]:
    """The run folders that a benchmark in ``folder`` plans, and the (task, iterations, init) of each; or none."""
    return {
        place: (run["task"], run["iterations"], run["init"]) for place, run in _planned_runs(folder).items()
    }


def read_extras(folder: Path) -> dict[Path, dict]:
    """What a benchmark's plan says of its runs beyond their records, by their folders."""
    return {place: run.get("extra", {}) for place, run in _planned_runs(folder).items()}


def _planned_runs(folder: Path) -> dict[Path, dict]:
    path = folder / PLAN
    runs = json.loads(path.read_text())["runs"] if path.is_file() else {}
    return {(folder / name).resolve(): run for name, run in runs.items()}


def read_run(folder: Path) -> Run:
    """The run in ``folder``; ValueError when it did not finish, measured nothing, or its run.json is broken."""
    record = read_run_record(folder)
    curves, notes = read_curves(folder / "metrics.json")
    run = run_from_record(record, curves, folder, tuple(notes))
    if run.stage == "finetune" and run.metric is None:
        raise ValueError(
            f"{FILE_NAME} holds no finite AP or mIoU: nothing was evaluated, or nothing detected"
        )
    return run


def run_from_record(record: dict, curves: dict[str, Curve], folder: Path, notes: tuple[str, ...] = ()) -> Run:
    """A Run from the content of run.json (moco_det/engine/record.py) and its curves."""
    extra = record["extra"]
    init = str(extra.get("init", "none"))
    last = max((curve[-1][0] for curve in curves.values()), default=-1)
    return Run(
        folder=folder,
        stage=record["stage"],
        task=str(extra.get("task", record["stage"])),
        init=init,
        weights=str(extra.get("weights_sha256") or init)[:12],
        iterations=int(extra.get("iterations", last + 1)),
        seed=int(record["seed"]),
        config_hash=record["config_hash"],
        recipe_hash=record["recipe_hash"],
        commit=record["commit"],
        machine=_short_machine(record["machine"]),
        minutes=record["seconds"] / 60,
        metrics={name: v for name, v in with_todays_names(record["metrics"]).items() if v is not None},
        curves=curves,
        record=record,
        notes=notes,
    )


def _short_machine(machine: dict) -> str:
    gpus = machine["gpus"] if machine["device"] != "cpu" else []
    if gpus:
        return " + ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
    return f"{machine['cpu']}, {machine['cores']} cores"


def read_curves(path: Path) -> tuple[dict[str, Curve], list[str]]:
    """Every number of a metrics.json (JSON lines) as a curve, and notes on what could not be read.

    An incomplete line (the writer was killed) is skipped; where a resumed run wrote an iteration again, the
    later value stands.
    """
    if not path.is_file():
        return {}, [f"{path.name} is missing: no curves"]
    values: dict[str, dict[int, float]] = defaultdict(dict)
    incomplete = 0
    for line in path.read_text(errors="replace").splitlines():
        try:
            scalars = json.loads(line)
            iteration = int(scalars[ITERATION])
        except (ValueError, TypeError, KeyError):
            incomplete += bool(line.strip())
            continue
        for name, value in with_todays_names(scalars).items():
            if name != ITERATION and isinstance(value, int | float) and math.isfinite(value):
                values[name][iteration] = value
    notes = (
        [f"{path.name}: {incomplete} unreadable line{'s' * (incomplete > 1)} skipped"] if incomplete else []
    )
    return {name: sorted(points.items()) for name, points in values.items()}, notes
