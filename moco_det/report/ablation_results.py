"""What ablations gave: a record for each run, a row for each point, a table with the paper's numbers beside."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from moco_det.model_zoo.ablations import ABLATIONS, FAILS, SCALES, X, point_name, untrained_name
from moco_det.report.document import Table
from moco_det.report.rows import Row, build_rows
from moco_det.report.runs import Incomplete, Run
from moco_det.report.statistics import Summary
from moco_det.report.tables import cell
from moco_det.utils.metric_names import KNN_TOP1, KNN_UNTRAINED, LINEAR_TOP1, PRETEXT_ACCURACY

STAGE = "ablation"
LINEAR, KNN = LINEAR_TOP1, KNN_TOP1
UNTRAINED = "untrained"  # the row of random weights


@dataclass(frozen=True)
class Line:
    """A row of the table: a point, the paper's number there, or both.

    Attributes:
        row: our runs; None: not run.
        untrained: those of random weights; None: not run.
        printed: the paper's number; None also where the paper says that it fails.
        is_printed: the paper has this point.
    """

    curve: str
    x: X
    row: Row | None
    printed: float | None = None
    is_printed: bool = False
    untrained: Row | None = None

    @property
    def learned(self) -> bool | None:
        """Whether the linear probe is above that of random weights; None: not known."""
        ours, theirs = self.summary(LINEAR), self.untrained.summary(LINEAR) if self.untrained else None
        return ours.mean > theirs.mean if ours and theirs else None

    def summary(self, metric: str) -> Summary | None:
        return self.row.summary(metric) if self.row else None


def lines_of(
    name: str, scale: str, runs: Sequence[Run], incomplete: Sequence[Incomplete] = ()
) -> tuple[list[Line], list[str]]:
    """The points of an ablation in their order with what was measured, and notes.

    Points of the paper that the scale has not (another K) stand among them. Where runs of a point differ in config
    or code, each kind has a row of its own.
    """
    ablation = ABLATIONS[name]
    missing = [
        Incomplete(e.folder, e.reason, (e.row[0], _iterations(e.row[0], runs), "none")) for e in incomplete
    ]
    rows, notes = build_rows([run for run in runs if run.stage == STAGE], missing)
    points = ablation.points[scale]
    names = {point_name(point) for point in points}
    untrained = _untrained_row(scale, rows, [row for row in rows if row.task in names])
    lines = [Line(UNTRAINED, "", untrained)]
    for curve in dict.fromkeys(point.curve for point in points):
        printed = {} if ablation.by_epoch else dict(ablation.paper.get(curve, ()))
        own = {point.x: point for point in points if point.curve == curve}
        places = [*own, *(x for x in printed if x not in own)]
        if ablation.log:
            places.sort()
        for x in places:
            found = [row for row in rows if x in own and row.task == point_name(own[x])]
            lines += [
                Line(curve, x, row, printed.get(x, FAILS), x in printed, untrained) for row in found or [None]
            ]
    shown = {line.row.task for line in lines if line.row}
    return lines, [note for note in notes if any(note.startswith(task + ",") for task in shown)]


def _untrained_row(scale: str, rows: Sequence[Row], measured: Sequence[Row]) -> Row | None:
    """Random weights that were evaluated as the points were: on held-out images or not, by the same protocol."""
    found = [row for row in rows if row.task == untrained_name(scale)]
    protocols = {_protocol_of(run) for row in measured for run in row.runs}
    alike = [row for row in found if row.runs[0].recipe_hash in protocols]
    return next(iter([*alike, *found]), None)


def _protocol_of(run: Run) -> str | None:
    """The hash of the protocol that evaluated a point, without where its weights are; None in old records."""
    return run.record["extra"].get("classify", {}).get("recipe_hash")


def _iterations(task: str, runs: Sequence[Run]) -> int:
    return next((run.iterations for run in runs if run.task == task), 0)


def ablation_table(name: str, scale: str, lines: Sequence[Line]) -> Table:
    """Mean and standard deviation over the seeds, and the paper's number for the same point.

    Raises:
        ValueError: the scale is not one of SCALES.
    """
    if scale not in SCALES:
        raise ValueError(f"the scale is {scale!r}; expected one of {', '.join(SCALES)}")
    ablation = ABLATIONS[name]
    x = () if ablation.by_epoch else (ablation.x,)
    paper = ("the paper: linear, ImageNet-1k, %",) if any(line.is_printed for line in lines) else ()
    header = ("run", *x, "n", "linear top-1, %", "kNN top-1, %", "pretext accuracy, %", *paper, "min/run")
    rows = []
    for line in lines:
        label = f"{line.curve} ({line.row.variant})" if line.row and line.row.variant else line.curve
        fails = ", fails: not above untrained" if line.learned is False else ""
        rows.append(
            (
                label,
                *((str(line.x),) if x else ()),
                line.row.count if line.row else "—",
                cell(line.summary(LINEAR)) + fails,
                cell(line.summary(KNN)),
                _percent(line.row, PRETEXT_ACCURACY) if line.row else "—",
                *((_printed(line),) if paper else ()),
                f"{line.row.minutes:.1f}" if line.row else "—",
            )
        )
    return Table(header, tuple(rows), title=ablation.title)


def _printed(line: Line) -> str:
    if not line.is_printed:
        return "—"
    return "fails" if line.printed is None else f"{line.printed:.1f}"


def _percent(row: Row, name: str) -> str:
    """The end of a curve, the mean over the runs."""
    ends = [run.curves[name][-1][1] for run in row.runs if run.curves.get(name)]
    return f"{sum(ends) / len(ends):.1f}" if ends else "—"


def summary_json(name: str, scale: str, lines: Sequence[Line], incomplete: Sequence[Incomplete]) -> str:
    """Everything of the table and the figure in full precision."""
    entries = [
        {
            "curve": line.curve,
            ABLATIONS[name].x: line.x,
            "paper": line.printed,
            "in_paper": line.is_printed,
            "runs": [
                {
                    "seed": run.seed,
                    "folder": str(run.folder),
                    "metrics": {key: run.metrics.get(key) for key in (LINEAR, KNN, KNN_UNTRAINED)},
                    "curves": run.curves,
                }
                for run in (line.row.runs if line.row else ())
            ],
        }
        for line in lines
    ]
    missing = [{"folder": str(entry.folder), "reason": entry.reason} for entry in incomplete]
    content = {"ablation": name, "scale": scale, "points": entries, "incomplete": missing}
    return json.dumps(content, indent=1) + "\n"
