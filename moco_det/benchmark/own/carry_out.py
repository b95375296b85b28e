"""Carrying a study out: its files, its runs, what is kept, and the report."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from moco_det.benchmark.own.plan import (
    PRETRAINED,
    STUDY,
    Study,
    run_step_of,
    start_steps,
)
from moco_det.benchmark.own.settle import Setting, write_inputs
from moco_det.benchmark.own.tuning import tune
from moco_det.benchmark.plan import Planned, settle_plan
from moco_det.benchmark.steps import run_steps
from moco_det.report import kept_results
from moco_det.report.own import SUITE, next_steps, sentences, study_rows
from moco_det.report.report import write_report
from moco_det.report.rows import build_rows
from moco_det.report.runs import PLAN, Run


def carry_out(setting: Setting, study: Study) -> None:
    """Pre-train, tune, fine-tune, keep the results, report.

    Raises:
        ValueError: runs failed, after the others ran and were reported.
    """
    output, args = setting.output, setting.args
    write_inputs(setting)
    logs, folder = output / "logs", output / STUDY
    suite = SUITE + re.sub(r"[^\w-]", "-", args.name or setting.data.facts.name)
    kept = {
        run.record["extra"].get("fingerprint"): run for run in kept_results.load_results(args.results, suite)
    }
    rates = {}
    if args.tune_lr:
        run_steps(start_steps(setting.starts, setting.pretrain_command(study), output), logs)
        rates = tune(setting, study)
    planned = setting.planned(study, rates)
    forget_unstarted(folder / PLAN)
    settle_plan(planned, folder)
    restore(planned, kept, folder)
    needed = {one.init for one in planned if not (folder / one.folder / "run.json").exists()}
    starts = [start for start in setting.starts if start.name in needed]
    steps = start_steps(starts, setting.pretrain_command(study), output)
    steps += [run_step_of(one, folder) for one in planned]
    failure = None
    try:
        run_steps(steps, logs, setting.jobs, setting.gpus, keep_going=True)
    except ValueError as error:
        failure = error
    report = write_report([folder], output / "report")
    kept_results.save_results(report.runs, args.results, suite)
    rows = study_rows(build_rows(report.runs, report.incomplete)[0])
    answer = [*sentences(rows), f"To try next: {'; '.join(next_steps(rows))}."] if rows else []
    print("\n".join([report.table, *answer, f"report: {report.html}", f"kept: {Path(args.results, suite)}"]))
    if failure:
        raise failure


def forget_unstarted(path: Path) -> None:
    """Take runs that were planned and never begun out of a plan: a study that was narrowed does not miss them."""
    if path.is_file():
        runs = json.loads(path.read_text())["runs"]
        begun = {name: run for name, run in runs.items() if (path.parent / name).exists()}
        path.write_text(json.dumps({"runs": begun}, indent=1) + "\n")


def restore(planned: Sequence[Planned], kept: dict[str, Run], folder: Path) -> None:
    """Take runs from ``results/`` whose fingerprint is that of a planned one.

    Pre-training twice does not give the same weights to the last bit: the runs of a start that is pre-trained
    count if all of them are there, from the same weights.
    """
    for init in dict.fromkeys(one.init for one in planned):
        runs = [(one, kept.get(one.extra["fingerprint"])) for one in planned if one.init == init]
        lacking = [one for one, run in runs if run is None]
        weights = {run.weights for _, run in runs if run}
        runs = [(one, run) for one, run in runs if run and not (folder / one.folder).exists()]
        if init in PRETRAINED and runs and (lacking or len(weights) > 1):
            print(
                f"{len(runs)} runs from {init} are in results/, but not all of them, or of several "
                "pre-trainings: they are run again"
            )
            continue
        for one, run in runs:
            print(f"{one.folder}: done before, as its record in results/ says", flush=True)
            kept_results.restore_run(run, folder / one.folder)
