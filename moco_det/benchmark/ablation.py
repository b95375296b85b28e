"""The paper's ablations in one command, ``tools/run_ablation.py``: resumable, and ending in the paper's figure."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from moco_det.benchmark.ablation_plan import PLAN, AblationRun, chain_of, plan_ablations, read_ablation_runs
from moco_det.benchmark.plan import settle_runs
from moco_det.benchmark.steps import run_chains, settle_places
from moco_det.engine.run_folder import check_writable
from moco_det.model_zoo.ablations import ABLATIONS
from moco_det.report import kept_results
from moco_det.report.ablation_figure import ablation_figure
from moco_det.report.ablation_results import ablation_table, lines_of, summary_json
from moco_det.report.document import markdown_table, terminal_table
from moco_det.utils.errors import user_errors
from moco_det_cli.parsers.studies import ablation_parser


def run(args: argparse.Namespace, add_configs: Sequence = ()) -> None:
    """Carry out a parsed command line (``add_configs``: the same signature as every stage; unused here).

    Raises:
        ValueError: a setting that cannot work; or runs that failed, after the others ran and the table was made.
    """
    output, images, classes = (Path(path).resolve() for path in (args.output, args.images, args.classes))
    check_writable(args.output, "--output")
    without = [name for name in args.ablations if not ABLATIONS[name].points[args.scale]]
    if without:
        raise ValueError(f"--scale {args.scale} has no runs of {', '.join(without)}; leave them out")
    if not 0 <= args.held_out < 1:
        raise ValueError(f"--held-out is {args.held_out}; expected a fraction from 0 on and below 1")
    planned = plan_ablations(
        args.ablations, args.scale, args.seeds, images, classes, args.options, args.held_out
    )
    args.num_gpus, gpus, jobs = settle_places(args.num_gpus, args.jobs)
    flags = ("--num-gpus", str(args.num_gpus), *(("--dist-url", "auto") if args.num_gpus > 1 else ()))
    chains = [chain_of(one, output, images, classes, flags) for one in planned]
    left = sum(not all(step.result.exists() for step in chain) for chain in chains)
    print(
        f"{len(chains)} runs, {left} left, {jobs} at a time; each is pre-trained and then evaluated",
        flush=True,
    )
    if args.dry_run:
        print("\n".join(step.shell for chain in chains for step in chain))
        return
    entries = {
        one.folder: {"fingerprint": one.fingerprint, "commands": [step.shell for step in chain]}
        for one, chain in zip(planned, chains, strict=True)
    }
    settle_runs(entries, output / PLAN)
    failure = None
    try:
        run_chains(chains, output / "logs", jobs, gpus)
    except ValueError as error:
        failure = error
    write_results(args.ablations, args.scale, planned, output, args.results)
    if failure:
        raise failure


def write_results(
    names: Sequence[str], scale: str, planned: Sequence[AblationRun], output: Path, results: str = ""
) -> None:
    """Write ``<ablation>.json``, ``.md`` and ``.png`` into ``output`` and print the tables.

    Args:
        results: folder of kept records; empty: none are kept.
    """
    runs, incomplete = read_ablation_runs(planned, output)
    for name in names:
        lines, notes = lines_of(name, scale, runs, incomplete)
        table = ablation_table(name, scale, lines)
        text = [f"# {table.title}", markdown_table(table), *(f"Note: {note}." for note in notes)]
        text += [f"Incomplete: {entry.folder.relative_to(output)}: {entry.reason}" for entry in incomplete]
        (output / f"{name}.md").write_text("\n\n".join(text) + "\n")
        (output / f"{name}.json").write_text(summary_json(name, scale, lines, incomplete))
        (output / f"{name}.png").write_bytes(ablation_figure(name, lines))
        print("\n".join([table.title, terminal_table(table), *notes, f"figure: {output / name}.png"]))
    if results:
        saved = kept_results.save_results(runs, results, kept_results.ABLATION_SUITE)
        print(f"{len(saved)} results in {Path(results, kept_results.ABLATION_SUITE)}")


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = ablation_parser().parse_args(argv)
    if len(args.options) % 2:
        raise ValueError(f"options after -- must be KEY VALUE pairs; found {len(args.options)} words")
    run(args)
