"""An ablation as a figure: our runs to the left, the paper's numbers to the right."""

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from moco_det.model_zoo.ablations import ABLATIONS
from moco_det.report.ablation_results import LINEAR, UNTRAINED, Line
from moco_det.report.figures import DPI, INK, STYLE, mean_and_band, to_png
from moco_det.report.runs import Run
from moco_det.utils.metric_names import EPOCH

# As Figure 3 of MoCo v1 has them: end-to-end, memory bank, MoCo; other curves take them in turn.
COLORS = ("#7a828c", "#2f6690", "#c8553d", "#3a7d44", "#8e5ea2", "#b08900")
NAMED = {"end-to-end": 0, "memory bank": 1, "MoCo": 2}
MARKERS = ("s", "^", "o", "D", "v", "P")
TITLES = {
    "pretext": "ours: pretext accuracy, %",
    "knn": "ours: kNN, %",
    "linear": "ours: linear top-1, %",
    "paper": "the paper: linear, ImageNet-1k, %",
}


def ablation_figure(name: str, lines: Sequence[Line]) -> bytes:
    """A PNG. Error bars are standard deviations over the seeds; a curve by epochs is a mean with its range.

    A dotted line is the linear probe of random weights.
    """
    ablation = ABLATIONS[name]
    untrained = [line.summary(LINEAR) for line in lines if line.curve == UNTRAINED]
    lines = [line for line in lines if line.curve != UNTRAINED]
    numbers = {curve: NAMED.get(curve, i) for i, curve in enumerate(dict.fromkeys(x.curve for x in lines))}
    panels = ["pretext", "knn"] if ablation.by_epoch and ablation.paper else ["linear"]
    panels += ["knn"] if ablation.by_epoch and not ablation.paper else []
    panels += ["paper"] if ablation.paper else []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * max(len(panels), 2), 3.2), dpi=DPI, layout="constrained")
        axes = dict(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True))
        for curve, number in numbers.items():
            style = {"color": COLORS[number], "marker": MARKERS[number], "ms": 4, "lw": 1.6, "label": curve}
            own = [line for line in lines if line.curve == curve]
            printed = [(x, y) for x, y in ablation.paper.get(curve, ()) if y is not None]
            for panel, axis in axes.items():
                if panel == "linear":
                    _draw_ours(axis, own, style, at_curve=ablation.by_epoch)
                elif panel == "paper":
                    axis.plot(*zip(*printed, strict=True), **style)
                else:
                    _draw_epochs(axis, own, f"{panel}_accuracy", style)
        for panel, axis in axes.items():
            axis.set_title(TITLES[panel])
            if panel == "paper" and ablation.by_epoch:
                axis.set_title("the paper: kNN, % (read off the plot)")
            if ablation.log:
                _logarithmic(axis)
            elif panel == "linear" or not ablation.by_epoch:
                axis.tick_params(axis="x", labelrotation=70)
            axis.set_xlabel("" if panel == "linear" and ablation.by_epoch else ablation.x)
        # After the axes' ticks, which are the places of the points alone.
        for value in (value for value in untrained if value and "linear" in axes):
            axes["linear"].axhline(value.mean, color=INK, lw=1, ls=":")
            axes["linear"].annotate(
                "untrained", (1, value.mean), xycoords=("axes fraction", "data"), ha="right", va="bottom"
            )
        if axes[panels[-1]].get_legend_handles_labels()[0]:
            axes[panels[-1]].legend()
        return to_png(figure)


def _draw_ours(axis, lines: Sequence[Line], style: dict, at_curve: bool) -> None:
    """Points at their places, or each curve's one point at the curve's name."""
    places = [line.curve if at_curve else line.x for line in lines]
    summaries = [line.summary(LINEAR) for line in lines]
    measured = [(x, value) for x, value in zip(places, summaries, strict=True) if value]
    if measured:
        places, values = zip(*measured, strict=True)
        axis.errorbar(
            places,
            [v.mean for v in values],
            yerr=[v.std or 0 for v in values],
            capsize=2.5,
            elinewidth=1,
            **style,
        )


def _draw_epochs(axis, lines: Sequence[Line], name: str, style: dict) -> None:
    runs = [run for line in lines if line.row for run in line.row.runs]
    points = mean_and_band([_over_epochs(run, name) for run in runs]) if runs else []
    if points:
        epochs, mean, low, high = zip(*points, strict=True)
        axis.plot(epochs, mean, **style)
        axis.fill_between(epochs, low, high, color=style["color"], alpha=0.15, lw=0)


def _over_epochs(run: Run, name: str) -> list[tuple[float, float]]:
    """A curve over iterations as one over epochs."""
    epochs = run.metrics[EPOCH] / run.iterations
    return [(round(epochs * (iteration + 1), 2), value) for iteration, value in run.curves.get(name, [])]


def _logarithmic(axis) -> None:
    ticks = sorted({int(x) for line in axis.lines for x in line.get_xdata()})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(tick) for tick in ticks], rotation=70)
    axis.minorticks_off()
