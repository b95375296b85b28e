"""Rows as tables: for the page, for Markdown, for the terminal, and in full precision as CSV."""

import csv
import io
from collections.abc import Sequence

from moco_det.model_zoo.paper_results import PAPER_RESULTS, PaperResult
from moco_det.model_zoo.tasks import METRICS
from moco_det.report import captions
from moco_det.report.document import Table, terminal_table
from moco_det.report.rows import Row, build_rows, difference, pairs, reference_of
from moco_det.report.runs import Incomplete, Run
from moco_det.report.statistics import Interval, Summary
from moco_det.utils.metric_names import KNN_ACCURACY, KNN_UNTRAINED

NOT_TESTED = "not tested"


def finetune_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that hold what fine-tuning gave."""
    return [row for row in rows if row.stage == "finetune"]


def pretrain_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that hold pre-training runs."""
    return [row for row in rows if row.stage == "pretrain"]


def used_metrics(rows: Sequence[Row]) -> list[str]:
    """The METRICS that any row has: the one by which they are compared, then the others in METRICS' order."""
    used = [name for name in METRICS if any(row.summary(name) for row in rows)]
    return list(dict.fromkeys([*(row.metric for row in rows), *used]))


def difference_to_random(row: Row, rows: Sequence[Row]) -> str:
    """The cell of a row; an em dash for random init itself."""
    if row.init == "random":
        return "—"
    if row.missing:
        return "incomplete"
    reference = reference_of(row, rows)
    return cell(difference(row, reference, row.metric) if reference else None, NOT_TESTED)


def cell(value: Summary | Interval | None, missing: str = "—") -> str:
    """A number as text, or what stands in its place."""
    return missing if value is None else str(value)


def printed_cell(result: PaperResult, metric: str) -> str:
    """A number of the paper as text; an em dash where it printed none."""
    return f"{result.metrics[metric]:.1f}" if metric in result.metrics else "—"


def task_table(task: str, rows: Sequence[Row]) -> Table:
    """The results of one task, with the paper's rows for the same recipe below the own ones."""
    own = [row for row in rows if row.task == task]
    printed = [result for result in PAPER_RESULTS if result.task == task]
    metrics = used_metrics(own)
    main, others = METRICS[metrics[0]], [METRICS[metric] for metric in metrics[1:]]
    has_start = any(row.at_start(metrics[0]) for row in own)
    header = ("init", "iterations", "n", *(["at start"] if has_start else []))
    header += (main, f"{main} − random", *others, "min/run", "GiB")
    lines = [
        (
            row.label,
            f"{row.iterations:,}",
            row.count,
            *([cell(row.at_start(metrics[0]))] if has_start else []),
            cell(row.summary(metrics[0])),
            difference_to_random(row, own),
            *(cell(row.summary(metric)) for metric in metrics[1:]),
            f"{row.minutes:.1f}",
            "—" if row.memory is None else f"{row.memory:.1f}",
        )
        for row in own
    ]
    lines += [
        (
            f"{result.init} ({result.source})",
            f"{result.iterations:,}",
            str(result.runs or "?"),
            *(["—"] if has_start else []),
            printed_cell(result, metrics[0]),
            "—",
            *(printed_cell(result, metric) for metric in metrics[1:]),
            "—",
            "—",
        )
        for result in printed
    ]
    caption = captions.PAPER_ROWS if printed else ""
    return Table(header, tuple(lines), caption, frozenset(range(len(own), len(lines))), title=task)


def pair_table(task: str, rows: Sequence[Row]) -> Table | None:
    """Every two inits of one task, recipe, schedule and commit, compared by seed; None for fewer than three.

    With two inits the table of results says it already.
    """
    own = [row for row in rows if row.task == task]
    if len({row.init for row in own}) < 3:
        return None
    metrics = used_metrics(own)
    lines = [
        (
            f"{row.label} − {reference.label}",
            f"{row.iterations:,}",
            str(len(row.by_seed(metrics[0]).keys() & reference.by_seed(metrics[0]).keys())),
            *(cell(difference(row, reference, metric), NOT_TESTED) for metric in metrics),
        )
        for row, reference in pairs(own)
    ]
    header = ("difference", "iterations", "seeds", *(METRICS[metric] for metric in metrics))
    return Table(header, tuple(lines), captions.PAIRS)


def pretrain_table(rows: Sequence[Row]) -> Table:
    """Pre-training runs: what they saw and what kNN made of it."""
    lines = [
        (
            row.task if row.init == "none" else f"{row.task}, {row.label}",
            f"{cell(row.summary(KNN_UNTRAINED))} → {cell(row.summary(KNN_ACCURACY))}",
            str(len(row.runs)),
            f"{row.iterations:,}",
            count(row, "images"),
            count(row, "views"),
            f"{row.minutes:.1f}",
        )
        for row in rows
    ]
    header = ("pre-training", "kNN, %", "n", "iterations", "images", "views", "min/run")
    return Table(header, tuple(lines), captions.PRETRAINING_TABLE)


def count(row: Row, name: str) -> str:
    """A count that the runs of a row recorded under ``extra``, e.g. ``"images"``."""
    values = dict.fromkeys(run.record["extra"].get(name) for run in row.runs)
    return ", ".join("—" if value is None else f"{value:,}" for value in values)


def headlines(rows: Sequence[Row]) -> list[str]:
    """What the numbers say in words: a sentence for each row that has a random-init row to stand against, and one
    for each pre-training that kNN watched."""
    sentences = []
    for row in rows:
        if row.stage == "pretrain":
            before, after = row.summary(KNN_UNTRAINED), row.summary(KNN_ACCURACY)
            if before and after:
                sentences.append(
                    f"{row.task}: kNN accuracy {before} % untrained, {after} % after pre-training."
                )
            continue
        reference = reference_of(row, rows)
        ours, theirs = row.summary(row.metric), reference.summary(row.metric) if reference else None
        if ours and theirs and not row.missing:
            tested = difference(row, reference, row.metric)
            facts = f"{tested} (95 % interval, {tested.n} seeds)" if tested else NOT_TESTED
            sentences.append(
                f"{verdict(tested)}: {METRICS[row.metric]} {ours} from {row.label}, {theirs} from "
                f"{reference.label} weights; difference {facts}. ({row.task}, {row.iterations:,} iterations)"
            )
    return sentences


def verdict(tested: Interval | None) -> str:
    """What a difference to random weights means; None: fewer seeds than a test needs."""
    if tested is None:
        return "Too few seeds to tell"
    if tested.low > 0:
        return "Pre-training helped"
    return "Pre-training hurt" if tested.high < 0 else "No difference found"


def format_terminal_table(runs: Sequence[Run], incomplete: Sequence[Incomplete] = ()) -> str:
    """What a terminal shows at the end: fine-tuning results, then pre-training, in plain aligned text."""
    rows, notes = build_rows(runs, incomplete)
    parts = []
    if finetuned := finetune_rows(rows):
        header = ("recipe", "init", "iterations", "n", "metric", "at start", "at the end")
        header += ("difference to random [95 %]",)
        lines = [
            (
                row.task,
                row.label,
                f"{row.iterations:,}",
                row.count,
                METRICS[row.metric],
                cell(row.at_start(row.metric)),
                cell(row.summary(row.metric)),
                difference_to_random(row, finetuned),
            )
            for row in finetuned
        ]
        parts.append(terminal_table(Table(header, tuple(lines))))
    if pretrained := pretrain_rows(rows):
        parts.append(terminal_table(pretrain_table(pretrained)))
    return "\n\n".join([*parts, *(f"note: {note}" for note in notes)])


CSV_HEADER = (
    "source",
    "stage",
    "task",
    "iterations",
    "init",
    "variant",
    "metric",
    "n",
    "mean",
    "std",
    "reference",
    "pairs",
    "difference",
    "low",
    "high",
    "minutes",
    "seeds",
    "config_hash",
    "commit",
    "weights",
    "machine",
)


def csv_text(rows: Sequence[Row]) -> str:
    """One line per row and metric, in full precision; then the paper's rows of the same tasks."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in rows:
        for metric in sorted({name for run in row.runs for name in run.metrics}):
            writer.writerow(_csv_line(row, metric, rows))
    tasks = {row.task for row in rows}
    for result in (result for result in PAPER_RESULTS if result.task in tasks):
        for metric, value in result.metrics.items():
            known = (result.source, "finetune", result.task, result.iterations, result.init, "", metric)
            line = (*known, result.runs or "", value)
            writer.writerow(line + ("",) * (len(CSV_HEADER) - len(line)))
    return buffer.getvalue()


def _csv_line(row: Row, metric: str, rows: Sequence[Row]) -> tuple:
    summary, reference, first = row.summary(metric), reference_of(row, rows), row.runs[0]
    tested = difference(row, reference, metric) if reference else None
    compared = (reference.label, tested.n, tested.mean, tested.low, tested.high) if tested else ("",) * 5
    return (
        "this project",
        row.stage,
        row.task,
        row.iterations,
        row.init,
        row.variant,
        metric,
        summary.n,
        summary.mean,
        "" if summary.std is None else summary.std,
        *compared,
        f"{row.minutes:.2f}",
        " ".join(str(run.seed) for run in row.runs),
        first.config_hash,
        first.commit,
        first.weights,
        row.machines,
    )
