"""Run folders in, a report out: ``report.html``, ``report.md``, ``report.csv`` and the figures as files."""

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from moco_det.report import captions, figures, kept_results, panels
from moco_det.report.document import Block, Lines, Picture, Section, Text, markdown
from moco_det.report.own import study_rows, study_section
from moco_det.report.page import html_page
from moco_det.report.rows import Row, build_rows
from moco_det.report.runs import Incomplete, Run, find_runs
from moco_det.report.tables import (
    csv_text,
    finetune_rows,
    format_terminal_table,
    headlines,
    pair_table,
    pretrain_rows,
    pretrain_table,
    task_table,
)
from moco_det.utils.errors import user_errors
from moco_det_cli.parsers.studies import report_parser

TITLE = "What pre-training bought"


@dataclasses.dataclass(frozen=True)
class Report:
    """What was written and from what."""

    html: Path
    markdown: Path
    csv: Path
    runs: tuple[Run, ...]
    incomplete: tuple[Incomplete, ...]

    @property
    def table(self) -> str:
        """The results as plain text for a terminal."""
        return format_terminal_table(self.runs, self.incomplete)

    @property
    def headlines(self) -> list[str]:
        """What the results say in words."""
        rows = build_rows(self.runs, self.incomplete)[0]
        return [] if study_rows(rows) else headlines(rows)  # a study's own section says it


def write_report(run_dirs: Sequence[str | os.PathLike], output: str | os.PathLike) -> Report:
    """Read every run in ``run_dirs`` (and below) and write the report into the folder ``output``.

    Raises:
        ValueError: no run was found, or ``output`` cannot be written.
    """
    return write_report_of(*find_runs(run_dirs), output)


def write_report_of(
    runs: Sequence[Run], incomplete: Sequence[Incomplete], output: str | os.PathLike
) -> Report:
    """As :func:`write_report`, of runs that were read before."""
    output = Path(output)
    report = Report(
        output / "report.html", output / "report.md", output / "report.csv", tuple(runs), tuple(incomplete)
    )
    with _writing_to(output):  # before the figures are drawn: that takes a while
        (output / "figures").mkdir(parents=True, exist_ok=True)
    sections, lead = make_sections(runs, incomplete), report.headlines
    pictures = [block for section in sections for block in section.blocks if isinstance(block, Picture)]
    with _writing_to(output):
        for picture in pictures:
            (output / "figures" / f"{picture.name}.png").write_bytes(picture.png)
        report.html.write_text(html_page(TITLE, sections, lead), encoding="utf-8")
        report.markdown.write_text(markdown(TITLE, sections, lead), encoding="utf-8")
        report.csv.write_text(csv_text(build_rows(runs, incomplete)[0]), encoding="utf-8")
    return report


@contextlib.contextmanager
def _writing_to(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot write the report to {str(output)!r}: {error.strerror}; give another folder with --output"
        ) from error


def make_sections(runs: Sequence[Run], incomplete: Sequence[Incomplete]) -> list[Section]:
    """The content of the report in reading order; a section without content is left out."""
    rows, notes = build_rows(runs, incomplete)
    finetuned, pretrained = finetune_rows(rows), pretrain_rows(rows)
    study = study_section(rows)
    sections = [
        *([study] if study else []),
        Section("Results", _results(finetuned, pretrained, notes, incomplete)),
        Section("The metric over iterations", _curves(finetuned)),
        Section("Pre-training", _pretraining(pretrained)),
        Section("Sample views", _sample_views(pretrained)),
        Section("Nearest neighbors", _neighbors(pretrained)),
        Section("Detections on test images", _detections(finetuned)),
        Section("How each run was made", _provenance(runs, incomplete)),
    ]
    return [section for section in sections if section.blocks]


def _results(finetuned, pretrained, notes, incomplete) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for task in dict.fromkeys(row.task for row in finetuned):
        blocks.append(task_table(task, finetuned))
        if differences := pair_table(task, finetuned):
            blocks.append(differences)
    if finetuned:
        blocks.append(Text(captions.RESULTS))
    if pretrained:
        blocks.append(pretrain_table(pretrained))
    blocks += [Text(f"Note: {note}.") for note in notes]
    if incomplete:
        names = ", ".join(entry.folder.name for entry in incomplete)
        blocks.append(Text(f"Incomplete, in no number above: {names} (reasons at the end)."))
    return tuple(blocks)


def _curves(finetuned: Sequence[Row]) -> tuple[Block, ...]:
    pictures = []
    for number, task in enumerate(dict.fromkeys(row.task for row in finetuned)):
        if png := figures.metric_curves([row for row in finetuned if row.task == task]):
            pictures.append(
                Picture(f"curves_{number}", png, f"{task}.", f"{task}: the metric over the iterations.")
            )
    return _explained(pictures, captions.CURVES)


def _explained(pictures: Sequence[Picture], how_to_read: str) -> tuple[Picture, ...]:
    """The first of similar pictures says how to read them."""
    return tuple(
        dataclasses.replace(picture, caption=f"{picture.caption} {how_to_read}") if number == 0 else picture
        for number, picture in enumerate(pictures)
    )


def _pretraining(pretrained: Sequence[Row]) -> tuple[Block, ...]:
    png = figures.pretraining_curves(pretrained)
    return (Picture("pretraining", png, captions.PRETRAINING_CURVES),) if png else ()


def _each_run(pretrained: Sequence[Row], draw, name: str, caption: str) -> tuple[Block, ...]:
    drawn = [(run, draw(run)) for row in pretrained for run in row.runs]
    return tuple(
        Picture(
            *(f"{name}_{number}", png, f"{run.folder.name}. {caption}"),
            content=f"{run.folder.name}: {caption.partition('. ')[0]}.",
        )
        for number, (run, png) in enumerate(drawn)
        if png
    )


def _sample_views(pretrained: Sequence[Row]) -> tuple[Block, ...]:
    return _each_run(pretrained, panels.sample_views, "sample_views", captions.SAMPLE_VIEWS)


def _neighbors(pretrained: Sequence[Row]) -> tuple[Block, ...]:
    return _each_run(pretrained, panels.neighbors, "neighbors", captions.NEIGHBORS)


def _detections(finetuned: Sequence[Row]) -> tuple[Block, ...]:
    pictures = []
    for number, task in enumerate(dict.fromkeys(row.task for row in finetuned)):
        rows = [row for row in finetuned if row.task == task]
        longest = max(row.iterations for row in rows)
        if png := panels.detections([row for row in rows if row.iterations == longest]):
            pictures.append(
                Picture(
                    f"detections_{number}",
                    png,
                    f"{task}, {longest:,} iterations.",
                    f"{task}: true boxes and detections on test images.",
                )
            )
    return _explained(pictures, captions.DETECTIONS)


def _provenance(runs: Sequence[Run], incomplete: Sequence[Incomplete]) -> tuple[Block, ...]:
    blocks = []
    if runs:
        lines = tuple(map(_describe_run, runs))
        blocks.append(Lines(f"Command, seed, config, commit and machine of {len(runs)} finished runs", lines))
    if incomplete:
        lines = tuple(f"{entry.folder}: {entry.reason}" for entry in incomplete)
        blocks.append(Lines(f"{len(incomplete)} incomplete runs, in no number above", lines))
    return tuple(blocks)


def _describe_run(run: Run) -> str:
    facts = (
        f"seed {run.seed}, config {run.config_hash}, commit {run.commit}, weights {run.weights}",
        f"{run.minutes:.1f} min on {run.machine}",
        f"finished {run.record['finished']}",
        *run.notes,
    )
    return f"{run.folder.name}: {run.record['command']} ({'; '.join(facts)})"


def run(args: argparse.Namespace, add_configs: Sequence = ()) -> None:
    """Carry out a parsed command line (``add_configs``: the same signature as every stage; unused here)."""
    if args.runs or args.from_results:
        kept = kept_results.load_results(args.results, args.from_results) if args.from_results else []
        found, incomplete = find_runs(args.runs) if args.runs else ([], [])
        report = write_report_of([*found, *kept], incomplete, args.output)
        print(report.table)
        print("\n" + "\n".join(report.headlines) + "\n" if report.headlines else "")
        for entry in report.incomplete:
            print(f"incomplete, not counted: {entry.folder}: {entry.reason}")
        if args.suite:
            refuse_incomplete(report.incomplete)
            saved = kept_results.save_results(report.runs, args.results, args.suite)
            print(f"{len(saved)} results in {Path(args.results, args.suite)}")
        print(f"report: {report.html.resolve()}")
    for path in args.update_tables:
        kept_results.update_tables(path, args.results)


def refuse_incomplete(incomplete: Sequence[Incomplete]) -> None:
    missing = [str(entry.folder) for entry in incomplete if entry.row]
    if missing:
        raise ValueError(
            f"--suite keeps whole benchmarks; {len(missing)} planned runs are not finished ({missing[0]} …): "
            "finish them with tools/run_benchmark.py"
        )


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: report, kept records, generated tables."""
    arguments = report_parser().parse_args(argv)
    if not (arguments.runs or arguments.from_results or arguments.update_tables):
        raise ValueError("nothing to do: give run folders, --from-results SUITE, or --update-tables FILE")
    run(arguments)
