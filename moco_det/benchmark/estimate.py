"""How long a benchmark will take, from runs of the same recipes that are finished. It never guesses."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from moco_det.benchmark.plan import Planned
from moco_det.engine.record import FILE_NAME
from moco_det.report.document import Table, terminal_table
from moco_det.report.kept_results import load_all_results
from moco_det.report.runs import Run, find_runs


def describe_plan(planned: Sequence[Planned], output: Path, results: str | os.PathLike, jobs: int) -> str:
    """A table of the recipes (runs, how many are finished, minutes of a run as measured) and the hours left.

    Args:
        results: folder of kept records. Those of another machine say nothing of this one and are left out.
        jobs: runs at a time.
    """
    finished = _finished(output, results)
    left = Counter(run.task for run in planned if not (output / run.folder / FILE_NAME).exists())
    lines, known, unknown = [], 0.0, []
    for task in dict.fromkeys(run.task for run in planned):
        runs = [run for run in planned if run.task == task]
        minutes = _minutes(task, runs[0].iterations, finished)
        if minutes is None and left[task]:
            unknown.append(task)
        known += left[task] * (minutes or 0)
        shown = "not measured" if minutes is None else f"{minutes:.1f}"
        inits = ", ".join(dict.fromkeys(run.init for run in runs))
        numbers = (f"{runs[0].iterations:,}", str(len(runs)), str(len(runs) - left[task]), shown)
        lines.append((task, inits, *numbers))
    header = ("recipe", "inits", "iterations", "runs", "finished", "min/run")
    total = f"left: {sum(left.values())} runs, {jobs} at a time, {known / 60 / jobs:.1f} hours"
    if unknown:
        total += f" and the unmeasured recipes ({len(unknown)}); each is known after its first run"
    return f"{terminal_table(Table(header, tuple(lines)))}\n{total}"


def _finished(output: Path, results: str | os.PathLike) -> list[Run]:
    kept = load_all_results(results)
    own = find_runs([output])[0] if any(output.rglob(FILE_NAME)) else []
    here = {run.machine for run in own}
    return own + [run for run in kept if not here or run.machine in here]


def _minutes(task: str, iterations: int, finished: Sequence[Run]) -> float | None:
    """The mean of the runs of a recipe on the machine that has most of them, in proportion to their iterations."""
    by_machine = defaultdict(list)
    for run in finished:
        if run.task == task and run.iterations:
            by_machine[run.machine].append(run.minutes * iterations / run.iterations)
    most = max(by_machine.values(), key=len, default=[])
    return sum(most) / len(most) if most else None
