"""Tasks x inits x seeds in one command, ``tools/run_benchmark.py``: resumable, and ending in one table."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from moco_det.benchmark.estimate import describe_plan
from moco_det.benchmark.inits import INITS, read_starts, write_overlays
from moco_det.benchmark.own import command as own
from moco_det.benchmark.plan import Planned, check_options, make_plan, settle_plan
from moco_det.benchmark.steps import REPOSITORY, Step, run_step, run_steps, settle_places
from moco_det.benchmark.suites import SUITES, Entry, choose
from moco_det.config import get_cfg
from moco_det.data.datasets.own import dataset_words
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.run_folder import check_writable
from moco_det.model_zoo.tasks import METRICS
from moco_det.report.report import Report, write_report
from moco_det.report.rows import build_rows
from moco_det.report.tables import finetune_rows
from moco_det.utils.children import call
from moco_det.utils.errors import user_errors
from moco_det.utils.files import datasets_root
from moco_det.utils.machine import num_cores
from moco_det_cli.parsers.studies import benchmark_parser


def run(args: argparse.Namespace, add_configs: Sequence = ()) -> None:
    """Carry out a parsed command line (``add_configs``: the same signature as every stage; unused here).

    Raises:
        ValueError: a setting that cannot work; or runs that failed, after the others ran and were reported.
    """
    output, suite = Path(args.output).resolve(), SUITES[args.suite]
    datasets = _datasets(args, output)
    entries, starts = choose(args.suite, args.tasks, args.recipes), read_starts(args.inits)
    check_writable(args.output, "--output")
    # Where all are of projects, their own keys may be meant, which only they know.
    if any(entry.tool == "tools/train_net.py" for entry in entries):
        check_options(args.options)
    gpus, jobs = _places(args)
    flags = ("--num-gpus", str(args.num_gpus), *(("--dist-url", "auto") if args.num_gpus > 1 else ()))
    flags += tuple(dataset_words(args))
    world = datasets / "toyworld/toyworld.json" if suite.world else None

    if not args.dry_run and suite.world:
        for step in _renderings(args, world, entries):
            run_step(step, "scenes:", output / "logs")
    elif not args.dry_run:
        _check_data(entries, datasets, args)
    planned = make_plan(entries, starts, args.seeds, args.label_fraction, output, flags, args.options, world)
    steps = [_step(one, output, datasets) for one in planned]
    print(describe_plan(planned, output, args.results, jobs), flush=True)
    if args.dry_run:
        print("\n".join(step.shell for step in steps))
        return
    settle_plan(planned, output)
    write_overlays(starts, output / INITS)
    if args.slurm:
        write_slurm(Path(args.slurm), steps, args.num_gpus)
    else:
        _run_and_report(steps, output, jobs, gpus)


def _run_and_report(steps: Sequence[Step], output: Path, jobs: int, gpus: Sequence[str]) -> None:
    """Raises ValueError when runs failed, after the others ran and the report was made."""
    failure = None
    try:
        run_steps(steps, output / "logs", jobs, gpus, keep_going=True)
    except ValueError as error:
        failure = error
    report = write_report([output], output / "report")
    print("\n".join([report.table, *verdicts(report), f"report: {report.html}"]))
    if failure:
        raise failure


def _datasets(args: argparse.Namespace, output: Path) -> Path:
    """The folder that the runs read as DETECTRON2_DATASETS."""
    if args.datasets:
        return Path(args.datasets).resolve()
    return output / "datasets" if SUITES[args.suite].world else Path(datasets_root()).resolve()


def _places(args: argparse.Namespace) -> tuple[tuple[str, ...], int]:
    """The GPUs of each run that is carried out at a time, and how many runs are; settles ``args.num_gpus``."""
    if args.slurm and args.num_gpus:  # of other machines
        return (), args.jobs or min(4, num_cores())
    args.num_gpus, gpus, jobs = settle_places(args.num_gpus, args.jobs)
    return gpus, jobs


def _renderings(args: argparse.Namespace, world: Path, entries: Sequence[Entry]) -> list[Step]:
    """The toy world, and what projects have of their own."""
    art = [
        word
        for flag, folder in (("--cutouts", args.cutouts), ("--backgrounds", args.backgrounds))
        if folder
        for word in (flag, str(Path(folder).resolve()))
    ]
    if args.suite == "photos" and not world.exists() and len(art) < 4:
        raise ValueError(
            f"{world} does not exist, and the suite photos renders it from --cutouts DIR and --backgrounds DIR "
            "(see docs/TOY_RESULTS.md)"
        )
    tool = str(REPOSITORY / "tools/make_toyworld.py")
    command = (tool, "--output", str(world.parent), *SUITES[args.suite].world, *art)
    steps = [Step("render the scenes", command, world)]
    for script, name in dict.fromkeys(entry.maker for entry in entries if entry.maker):
        folder = world.parent.parent / name
        steps.append(Step(f"make {name}", (str(REPOSITORY / script), str(folder)), folder / "annotations"))
    return steps


def _check_data(entries: Sequence[Entry], datasets: Path, args: argparse.Namespace) -> None:
    """Refuse to start on data sets that are not complete: the last task's would be missed after days."""
    names = list(dict.fromkeys(name for entry in entries for name in entry.tasks))
    asked = ["--tasks", *names]
    if "DATASETS.TRAIN" in args.options[0::2]:  # instead of the tasks' own
        cfg = get_cfg()
        cfg.merge_from_list(args.options)
        asked = ["--datasets", *cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    words = [*dataset_words(args), *asked]
    command = [sys.executable, "-W", "ignore", str(REPOSITORY / "tools/check_datasets.py"), *words]
    if call(command, env={**os.environ, "DETECTRON2_DATASETS": str(datasets)}):
        raise ValueError(
            "data sets are not complete, see above; complete them, or give --tasks that have theirs"
        )


def _step(planned: Planned, output: Path, datasets: Path) -> Step:
    title = f"{planned.task} from {planned.init}, seed {planned.seed}"
    environment = (("DETECTRON2_DATASETS", str(datasets)),)
    return Step(title, planned.command, output / planned.folder / RECORD, True, environment)


def write_slurm(folder: Path, steps: Sequence[Step], num_gpus: int) -> None:
    """A job array with one run per job; an interrupted job resumes when it is submitted again."""
    folder.mkdir(parents=True, exist_ok=True)
    left = [step for step in steps if not step.result.exists()]
    commands = [
        " ".join(
            [
                *(f"{name}={shlex.quote(value)}" for name, value in step.environment),
                shlex.quote(sys.executable),
            ]
            + [shlex.join(step.command)]
        )
        for step in left
    ]
    (folder / "commands.txt").write_text("".join(command + "\n" for command in commands))
    lines = (
        "#!/bin/bash",
        "# Written by tools/run_benchmark.py: one run per job. Add account and time, then: sbatch array.sh",
        f"#SBATCH --array=1-{len(left)}",
        "#SBATCH --job-name=moco_det",
        f"#SBATCH --gpus-per-node={num_gpus}" if num_gpus else "#SBATCH --cpus-per-task=4",
        f"#SBATCH --output={folder.resolve()}/%a.log",
        "#SBATCH --requeue",
        f"cd {shlex.quote(str(REPOSITORY))}",
        f'eval "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(folder.resolve() / "commands.txt"))})"',
    )
    (folder / "array.sh").write_text("\n".join(lines) + "\n")
    print(
        f"{len(left)} commands in {folder / 'commands.txt'}; submit them with: sbatch {folder / 'array.sh'}"
    )


def verdicts(report: Report) -> list[str]:
    """Whether training raised each row's metric above what it was before the first iteration."""
    rows = finetune_rows(build_rows(report.runs, report.incomplete)[0])
    measured = [row for row in rows if row.at_start(row.metric)]
    below = [row for row in measured if row.summary(row.metric).mean <= row.at_start(row.metric).mean]
    lines = [
        f"{row.task}, {row.label}: {METRICS[row.metric]} {row.summary(row.metric)} is not above its start"
        for row in below
    ]
    if measured:
        lines.append(f"{len(measured) - len(below)} of {len(measured)} rows ended above their start")
    return lines


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; ``own``, or ``--suite own``, is a command of its own."""
    args = benchmark_parser().parse_args(argv)
    if args.suite == "own":
        own.run(args)
        return
    if len(args.options) % 2:
        raise ValueError(f"options after -- must be KEY VALUE pairs; found {len(args.options)} words")
    if not all(0 < fraction <= 1 for fraction in args.label_fraction):
        raise ValueError(f"--label-fraction takes fractions above 0, up to 1; found {args.label_fraction}")
    run(args)
