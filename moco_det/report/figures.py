"""The curves of the report as PNG: pre-training, and the metric over the iterations of fine-tuning.

Drawn narrow (about five inches), one panel below the other, so that a phone shows them with readable letters.
"""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from moco_det.model_zoo.tasks import METRICS
from moco_det.report.rows import Row
from moco_det.report.runs import Curve
from moco_det.report.statistics import summarize
from moco_det.utils.metric_names import (
    ACCURACY,
    BANK_FILL,
    EFFECTIVE_RANK,
    KNN_ACCURACY,
    KNN_UNTRAINED,
    QUEUE_FILL,
    TOTAL_LOSS,
)

WIDTH = 5.2  # inches
DPI = 170
LEGEND_LETTERS = 66  # what a line of a legend below the panels has room for
INK, FAINT = "#33383f", "#dde1e6"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa1aa",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
# Okabe and Ito's palette, whose colors stay apart for the color-blind; markers tell them apart in gray.
INIT_COLORS = {
    "random": "#6b7280",
    "moco": "#d55e00",
    "own": "#d55e00",
    "supervised": "#0072b2",
    "supervised_torchvision": "#0072b2",
    "supervised_msra": "#009e73",
}
OTHER_COLORS = ("#cc79a7", "#e69f00", "#56b4e9", "#332288", "#117733")
MARKERS = "osD^vP"
RUN_COLORS = (INIT_COLORS["moco"], *OTHER_COLORS)

# name in metrics.json, title of the panel, factor to what is shown
PRETRAINING_PANELS = (
    (TOTAL_LOSS, "loss", 1),
    (ACCURACY, "(K+1)-way accuracy, %", 100),
    (QUEUE_FILL, "queue fill, %", 100),
    (BANK_FILL, "memory bank fill, %", 100),
    (KNN_ACCURACY, "kNN accuracy on labeled images, %", 1),
    (EFFECTIVE_RANK, "effective rank of the features", 1),
)


def new_figure(height: float) -> Figure:
    """An empty figure of the report's width, ``height`` inches high; draw within ``rc_context(STYLE)``."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def to_png(figure: Figure, description: str = "") -> bytes:
    """The figure as PNG; a description goes into its text."""
    buffer = io.BytesIO()
    metadata = {"Description": description} if description else {}
    figure.savefig(buffer, format="png", facecolor="white", metadata=metadata)
    return buffer.getvalue()


def curve_colors(labels: Sequence[str]) -> dict[str, str]:
    """One color per label; the known inits always have the same one."""
    others = [label for label in dict.fromkeys(labels) if label not in INIT_COLORS]
    rest = {label: OTHER_COLORS[i % len(OTHER_COLORS)] for i, label in enumerate(others)}
    return {label: INIT_COLORS.get(label) or rest[label] for label in labels}


def pretraining_curves(rows: Sequence[Row]) -> bytes | None:
    """Loss, accuracy, queue fill and kNN accuracy over iterations; None if no run has any of them.

    The runs of a row have one color, or, where it is the only row, one each.
    """
    runs = [run for row in rows for run in row.runs]
    labels = [run.folder.name if len(rows) == 1 else _row_name(row) for row in rows for run in row.runs]
    panels = [panel for panel in PRETRAINING_PANELS if any(panel[0] in run.curves for run in runs)]
    if not panels:
        return None
    names = list(dict.fromkeys(labels))
    columns = min(max(LEGEND_LETTERS // (max(map(len, names)) + 6), 1), 3)  # 6: the line and the gap
    with matplotlib.rc_context(STYLE):
        figure = new_figure(0.4 + 1.45 * len(panels) + 0.2 * -(-len(names) // columns) * (len(names) > 1))
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (name, title, factor) in zip(axes, panels, strict=True):
            for run, label in zip(runs, labels, strict=True):
                number = names.index(label)
                look = {
                    "color": RUN_COLORS[number % len(RUN_COLORS)],
                    "ls": ("-", "--")[number // len(RUN_COLORS) % 2],
                }
                iterations, values = _columns(run.curves.get(name, []))
                marker = "o" if name in (KNN_ACCURACY, EFFECTIVE_RANK) else None
                shown = [factor * value for value in values]
                axis.plot(iterations, shown, **look, lw=1.4, marker=marker, ms=3.5, label=label)
                if name == KNN_ACCURACY and KNN_UNTRAINED in run.metrics:
                    axis.axhline(run.metrics[KNN_UNTRAINED], color=look["color"], lw=1, ls=":")
            axis.set_title(title)
            if factor == 100:
                axis.set_ylim(bottom=0)
        axes[-1].set_xlabel("iteration")
        if len(names) > 1:
            lines = [axes[0].lines[labels.index(label)] for label in names]
            figure.legend(lines, names, loc="outside lower center", ncols=columns)
        return to_png(figure)


def _row_name(row: Row) -> str:
    name = f"{row.task}, {row.iterations:,}"
    return f"{name} ({row.variant})" if row.variant else name


def _columns(curve: Curve) -> tuple[list[int], list[float]]:
    return [iteration for iteration, _ in curve], [value for _, value in curve]


def mean_and_band(curves: Sequence[Curve]) -> list[tuple[int, float, float, float]]:
    """(iteration, mean, lowest, highest) at each iteration that every curve has.

    Where one run has no value yet a mean would be over other runs than at the next point.
    """
    values = [dict(curve) for curve in curves]
    shared = sorted(set.intersection(*map(set, values))) if values else []
    columns = {iteration: [curve[iteration] for curve in values] for iteration in shared}
    return [(i, summarize(column).mean, min(column), max(column)) for i, column in columns.items()]


def metric_curves(rows: Sequence[Row]) -> bytes | None:
    """The main metric over iterations for the rows of one task: one panel per schedule, one color per init.

    The mean over the seeds is a line, the range from the lowest to the highest seed a band, and each run a
    thin line. None if no run was evaluated on the way.
    """
    rows = [row for row in rows if any(row.metric in run.curves for run in row.runs)]
    if not rows:
        return None
    metric = rows[0].metric
    schedules = sorted({row.iterations for row in rows})
    by_label = curve_colors([row.label for row in rows])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(0.3 + 2.6 * len(schedules))
        axes = figure.subplots(len(schedules), 1, sharey=True, squeeze=False)[:, 0]
        for axis, iterations in zip(axes, schedules, strict=True):
            for row in (row for row in rows if row.iterations == iterations):
                _draw_row(axis, row, by_label[row.label], metric)
            axis.set_title(f"{METRICS[metric]}, schedule of {iterations:,} iterations")
            axis.legend()
        axes[0].set_ylim(bottom=0)  # shared; once all is drawn, or it would fix the top as well
        axes[-1].set_xlabel("iteration")
        return to_png(figure)


def _draw_row(axis, row: Row, color: str, metric: str) -> None:
    curves = [run.curves[metric] for run in row.runs if metric in run.curves]
    for curve in curves:
        axis.plot(*_columns(curve), color=color, lw=0.7, alpha=0.45)
    points = mean_and_band(curves)
    if points:
        iterations, mean, low, high = zip(*points, strict=True)
        axis.plot(
            iterations, mean, color=color, lw=2, marker="o", ms=3.5, label=f"{row.label}, n = {len(curves)}"
        )
        axis.fill_between(iterations, low, high, color=color, alpha=0.15, lw=0)
