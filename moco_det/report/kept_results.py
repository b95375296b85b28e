"""results/: one small JSON a finished, documented run; and the tables in the documents, generated from them.

A document holds a table between two markers, each alone on its line: ``<!-- results:SUITE -->`` and
``<!-- /results:SUITE -->`` (runs of this project, with their commands), the same with ``summary`` (without the
commands), ``<!-- own:NAME -->`` (the answer of a study of one's own data, the suite own-NAME),
``<!-- own-summary:NAME -->`` (one line a share of the labels; ``results/own-NAME/figure.png`` is its figure),
``<!-- ablation:NAME-SCALE -->`` (runs that tools/run_ablation.py kept), ``<!-- speed:NAME -->`` (what
tools/benchmark_speed.py measured, ``results/speed/NAME.json``), or ``<!-- paper:PREFIX -->`` (printed by the
paper, for the recipes whose names start so), each with its closing marker.
"""

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.record import check_record
from moco_det.model_zoo.ablations import ABLATIONS, SCALES
from moco_det.model_zoo.paper_results import PAPER_RESULTS
from moco_det.model_zoo.tasks import METRICS
from moco_det.report.ablation_results import UNTRAINED, ablation_table, lines_of
from moco_det.report.document import Table, markdown_table
from moco_det.report.own import SUITE, figure_caption, study_figure, study_markdown, study_rows, study_summary
from moco_det.report.rows import Row, build_rows
from moco_det.report.runs import Run, run_from_record
from moco_det.report.speed_tables import kept_speed
from moco_det.report.tables import (
    cell,
    count,
    difference_to_random,
    finetune_rows,
    pretrain_rows,
    printed_cell,
)
from moco_det.utils.files import atomic_write
from moco_det.utils.metric_names import ITERATION, KNN_ACCURACY, KNN_UNTRAINED, PRETEXT_ACCURACY

# The curves worth keeping: one value an evaluation, not one a log line.
KEPT_CURVES = (*(name for name in METRICS if not name.endswith("75")), KNN_ACCURACY, PRETEXT_ACCURACY)
ABLATION_SUITE = "ablations"
EMPTY = "Not measured yet."
MOST_COLUMNS = 2  # of metrics; more share one, so that a table can be read
SPEED_SUITE = "speed"  # measurements of a machine, not runs
KINDS = ("results", "summary", "paper", "ablation", "speed", "own", "own-summary")
STUDIES = {"own": study_markdown, "own-summary": study_summary}
FIGURE = "figure.png"
MARKER = re.compile(r"^<!-- (/?)([\w-]+):([\w-]+) -->$", re.MULTILINE)


def result_id(run: Run) -> str:
    """12 hex digits that stay the same when the same experiment is run again."""
    identity = [run.stage, run.task, run.init, run.weights, run.seed, run.config_hash]
    if run.seed < 0:  # a random one each time: no run repeats another
        identity.append(run.record["finished"])
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]


def save_results(runs: Sequence[Run], results: str | os.PathLike, suite: str) -> list[Path]:
    """Write ``results/suite/<id>.json`` for each run: its record and its evaluated curves.

    Raises:
        ValueError: the suite's name is not letters, digits, ``-`` and ``_``, or is ``speed``, which holds what
            tools/benchmark_speed.py measured; or the folder cannot be written.
    """
    if not re.fullmatch(r"[\w-]+", suite) or suite == SPEED_SUITE:
        raise ValueError(
            f"--suite takes a name of letters, digits, '-' and '_', other than {SPEED_SUITE!r}; found {suite!r}"
        )
    folder = Path(results, suite)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for run in runs:
            curves = {name: run.curves[name] for name in KEPT_CURVES if name in run.curves}
            path = folder / f"{result_id(run)}.json"
            # The length of the run may be known from its full curves alone, which are not kept.
            extra = {**run.record["extra"], "iterations": run.iterations}
            kept = {**run.record, "extra": extra, "curves": curves}
            path.write_text(json.dumps(kept, sort_keys=True) + "\n")
            paths.append(path)
    except OSError as error:
        raise ValueError(f"cannot write results to {str(folder)!r}: {error.strerror}") from error
    return paths


def restore_run(run: Run, folder: Path) -> None:
    """Write a kept run as the folder that its stage left: its record and its evaluated curves."""
    folder.mkdir(parents=True, exist_ok=True)
    values = defaultdict(dict)
    for name, curve in run.curves.items():
        for iteration, value in curve:
            values[iteration][name] = value
    lines = (json.dumps({ITERATION: iteration, **values[iteration]}) + "\n" for iteration in sorted(values))
    (folder / "metrics.json").write_text("".join(lines))
    with atomic_write(folder / RECORD) as path:
        path.write_text(json.dumps(run.record, indent=1) + "\n")


def load_results(results: str | os.PathLike, suite: str) -> list[Run]:
    """The kept runs of a suite, ordered by file name; empty when nothing was kept yet.

    Raises:
        ValueError: a file is not a kept run.
    """
    runs = []
    for path in sorted(Path(results, suite).glob("*.json")):
        try:
            record = check_record(json.loads(path.read_text()), path)
            curves = {name: [tuple(p) for p in points] for name, points in record.pop("curves").items()}
        except (json.JSONDecodeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is not a kept run ({error!r}); write it again with --suite") from error
        runs.append(run_from_record(record, curves, path.with_suffix("")))
    return runs


def load_all_results(results: str | os.PathLike) -> list[Run]:
    """The kept runs of all suites, see :func:`load_results`."""
    suites = sorted(folder.name for folder in Path(results).glob("*/") if folder.name != SPEED_SUITE)
    return [run for suite in suites for run in load_results(results, suite)]


def results_table(runs: Sequence[Run], commands: bool = True) -> str:
    """Markdown for a suite: fine-tuning and pre-training rows, machines, notes, and the commands to unfold."""
    rows, notes = build_rows(runs)
    if not rows:
        return EMPTY
    parts = []
    if finetuned := finetune_rows(rows):
        parts.append(markdown_table(_finetune_table(finetuned)))
    if pretrained := pretrain_rows(rows):
        parts.append(markdown_table(_pretrain_table(pretrained)))
    parts.append(f"Measured on {'; '.join(dict.fromkeys(row.machines for row in rows))}.")
    parts += [f"Note: {note}." for note in notes]
    if commands:
        parts.append(_details(rows))
    return "\n\n".join(parts)


def _finetune_table(rows: Sequence[Row]) -> Table:
    # Of each kind the metric itself; AP50 and AP75 stand in the files.
    shown = [name for name in METRICS if not name[-1].isdigit() and any(row.summary(name) for row in rows)]
    main = {METRICS[row.metric] for row in rows}
    has_start = any(row.at_start(row.metric) for row in rows)
    results = [METRICS[name] for name in shown]
    if len(shown) > MOST_COLUMNS:
        results = ["result"]
    header = (
        "recipe",
        "iterations",
        "init",
        "n",
        *(["at start"] if has_start else []),
        *results,
        f"{main.pop() if len(main) == 1 else 'its metric'} − random, 95 % interval",
        "min/run",
    )
    lines = [
        (
            row.task,
            f"{row.iterations:,}",
            row.label,
            row.count,
            *([cell(row.at_start(row.metric))] if has_start else []),
            *_result_cells(row, shown),
            difference_to_random(row, rows),
            f"{row.minutes:.1f}",
        )
        for row in rows
    ]
    return Table(header, tuple(lines))


def _result_cells(row: Row, shown: Sequence[str]) -> list[str]:
    """A cell for each metric, or one that names those which the row has."""
    if len(shown) <= MOST_COLUMNS:
        return [cell(row.summary(name)) for name in shown]
    return [", ".join(f"{METRICS[name]} {row.summary(name)}" for name in shown if row.summary(name))]


def _pretrain_table(rows: Sequence[Row]) -> Table:
    header = ("pre-training", "iterations", "n", "kNN untrained, %", "kNN after, %")
    header += ("images", "views", "min/run")
    lines = [
        (
            f"{row.task} ({row.variant})" if row.variant else row.task,
            f"{row.iterations:,}",
            str(len(row.runs)),
            cell(row.summary(KNN_UNTRAINED)),
            cell(row.summary(KNN_ACCURACY)),
            count(row, "images"),
            count(row, "views"),
            f"{row.minutes:.1f}",
        )
        for row in rows
    ]
    return Table(header, tuple(lines))


def _commands(row: Row) -> list[str]:
    """A heading and the commands of a row; one with N for the seed where they differ in nothing else."""
    name = f"# {row.task}, {row.iterations:,} iterations" + (f", {row.label}" if row.init != "none" else "")
    general = {re.sub(rf"(\bSEED |seed){run.seed}\b", r"\1N", run.record["command"]) for run in row.runs}
    if len(row.runs) > 1 and len(general) == 1:
        return [f"{name}; N = {', '.join(str(run.seed) for run in row.runs)}", *general]
    return [name, *dict.fromkeys(run.record["command"] for run in row.runs)]


def paper_table(suite: str) -> str:
    """Markdown of the paper's rows for the recipes in the folder whose name starts with ``suite``."""
    printed = [result for result in PAPER_RESULTS if result.task.lower().startswith(suite.lower())]
    if not printed:
        known = sorted({result.task.split("/")[0] for result in PAPER_RESULTS})
        raise ValueError(f"no printed results for paper:{suite}; known: {', '.join(known)}")
    metrics = [name for name in METRICS if any(name in result.metrics for result in printed)]
    header = ("recipe", "iterations", "init", *(METRICS[name] for name in metrics), "source")
    lines = [
        (
            result.task,
            f"{result.iterations:,}",
            result.init,
            *(printed_cell(result, name) for name in metrics),
            result.source + (f", mean of {result.runs}" if result.runs else ""),
        )
        for result in printed
    ]
    return markdown_table(Table(header, tuple(lines)))


def kept_ablation_table(name: str, scale: str, runs: Sequence[Run]) -> str:
    """Markdown of an ablation: its points with the paper's, and notes."""
    if name not in ABLATIONS or scale not in SCALES:
        raise ValueError(
            f"ablation:{name}-{scale} is not known; the names are {', '.join(ABLATIONS)}, the scales "
            f"{', '.join(SCALES)}"
        )
    lines, notes = lines_of(name, scale, runs)
    if not any(line.row for line in lines if line.curve != UNTRAINED):
        return EMPTY
    return "\n\n".join(
        [markdown_table(ablation_table(name, scale, lines)), *(f"Note: {note}." for note in notes)]
    )


def speed_of_machine(results: str | os.PathLike, name: str) -> str:
    """Markdown of a run of tools/benchmark_speed.py that was kept under this name."""
    path = Path(results, SPEED_SUITE, f"{name}.json")
    return kept_speed(json.loads(path.read_text())) if path.exists() else EMPTY


def _details(rows: Sequence[Row]) -> str:
    block = "\n\n".join("\n".join(_commands(row)) for row in rows)
    return f"<details><summary>Commands</summary>\n\n```bash\n{block}\n```\n\n</details>"


def render(text: str, results: str | os.PathLike, name: str = "text") -> str:
    """``text`` with the content between each pair of markers generated again.

    Raises:
        ValueError: there are no markers, one is of an unknown kind, or a pair is not closed.
    """
    markers = list(MARKER.finditer(text))
    if not markers:
        raise ValueError(f"{name} has no markers; expected a line such as <!-- results:photos -->")
    parts, end = [], 0
    for opening, closing in zip(markers[0::2], [*markers[1::2], None], strict=False):
        kind, suite = opening[2], opening[3]
        if kind not in KINDS:
            raise ValueError(f"{name}: unknown marker {opening[0]}; known kinds: {', '.join(KINDS)}")
        if opening[1] or closing is None or closing[0] != f"<!-- /{kind}:{suite} -->":
            found = closing[0] if closing else "the end of the file"
            raise ValueError(f"{name}: after {opening[0]} expected <!-- /{kind}:{suite} -->, found {found}")
        if kind == "paper":
            table = paper_table(suite)
        elif kind == "speed":
            table = speed_of_machine(results, suite)
        elif kind in STUDIES:
            table = STUDIES[kind](_rows_of_study(results, suite)) or EMPTY
        elif kind == "ablation":
            table = kept_ablation_table(*suite.rpartition("-")[::2], load_results(results, ABLATION_SUITE))
        else:
            table = results_table(load_results(results, suite), commands=kind == "results")
        parts += [text[end : opening.end()], f"\n{table}\n"]
        end = closing.start()
    return "".join([*parts, text[end:]])


def _rows_of_study(results: str | os.PathLike, name: str) -> list[Row]:
    return build_rows(load_results(results, SUITE + name))[0]


def update_tables(path: str | os.PathLike, results: str | os.PathLike) -> bool:
    """Generate the tables of a document again, and the figures of its studies; True if that changed one."""
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    new = render(text, results, str(path))
    if new != text:
        path.write_text(new, encoding="utf-8")
    studies = {opening[3] for opening in MARKER.finditer(text) if opening[2] in STUDIES}
    return any([new != text, *(update_figure(results, name) for name in studies)])


def update_figure(results: str | os.PathLike, name: str) -> bool:
    """Draw the figure of a study again if it is not that of its kept runs; True if that changed it.

    The figure tells what it shows (:func:`moco_det.report.own.figure_caption`) in its text, so it is known without
    drawing it.
    """
    path, rows = Path(results, SUITE + name, FIGURE), study_rows(_rows_of_study(results, name))
    if not rows or figure_is_current(path, rows):
        return False
    path.write_bytes(study_figure(rows))
    return True


def figure_is_current(path: Path, rows: Sequence[Row]) -> bool:
    """Whether a kept figure shows these rows."""
    if not path.is_file():
        return False
    with Image.open(path) as image:
        return image.info.get("Description") == figure_caption(rows)
