"""Did it help my detector? The first section of a report on a study of the user's own data (``benchmark own``).

Its runs are known by what the study's plan says of each: ``labeled_images``, ``schedule``, and ``study``, a
digest of all that the starts of a comparison share.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.ticker import NullFormatter

from moco_det.model_zoo.tasks import METRICS
from moco_det.report.document import Block, Picture, Section, Table, Text, markdown_table
from moco_det.report.figures import MARKERS, STYLE, curve_colors, new_figure, to_png
from moco_det.report.rows import REFERENCE_INIT, Row
from moco_det.report.statistics import Interval, paired_difference

TITLE = "Did it help?"
SUITE = "own-"  # how the folders of studies in results/ begin
SHORT, LONG = "short", "long"
OWN = ("own", "own_from_supervised")
OTHERS = ("supervised", "coco_detector")
IN_WORDS = {  # of the starts, in the figure
    REFERENCE_INIT: "random weights",
    "own": "MoCo on own images",
    "supervised": "ImageNet labels",
    "own_from_supervised": "ImageNet labels, then MoCo on own images",
    "coco_detector": "COCO detector",
}
LEAST_AP = 2.0
HELPS, HURTS, NO_DIFFERENCE = "helps", "hurts", "no difference found"
UNTESTED, TOO_LOW = "too few seeds to tell", "too low to tell"
RULES = (
    f"“{HELPS}”: the 95 % interval of the paired differences (same seed, same labels) is above 0; "
    f"“{HURTS}”: it is below 0; “{NO_DIFFERENCE}”: it holds 0, which is no proof that there is none; "
    f"“{TOO_LOW}”: neither start reached AP {LEAST_AP:g}, so the schedule was too short for these labels; "
    f"“{UNTESTED}”: fewer than three seeds are finished. Not corrected for the number of comparisons. One "
    "pre-training stands behind all seeds of a start: the intervals hold what fine-tuning adds by chance, "
    "not what another pre-training would."
)
NEEDED = (
    "Labels that random weights need: where the curve of random weights, interpolated between the shares "
    "on a logarithmic axis (and never falling), reaches the same AP; in brackets the same for both ends "
    "of the difference's interval. “> N” is beyond the curve, which ends at N labeled images; “< N” is "
    "below its first share."
)
FIGURE = (
    "AP on the test images over the number of labeled images, one line a start; bars: 95 % t-interval of "
    "the mean over the seeds. How far a line lies to the left of that of random weights is what it saves "
    "in labels."
)


# ---- rows of a study -------------------------------------------------------------------------------------------


def study_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of a study, by schedule, labels and start; empty where the runs are of none."""
    found = [row for row in rows if row.stage == "finetune" and "labeled_images" in _extra(row)]
    return sorted(found, key=lambda row: (schedule_of(row) != SHORT, num_images_of(row)))


def _extra(row: Row) -> dict:
    return row.runs[0].record["extra"]


def num_images_of(row: Row) -> int:
    """Labeled images that the runs of a row train on."""
    return _extra(row)["labeled_images"]


def schedule_of(row: Row) -> str:
    return _extra(row)["schedule"]


def reference_row(row: Row, rows: Sequence[Row], init: str = REFERENCE_INIT) -> Row | None:
    """The row of another start that shares all else with this one; None if there is not exactly one."""
    found = [other for other in rows if other.init == init and _extra(other)["study"] == _extra(row)["study"]]
    return found[0] if len(found) == 1 and found[0].init != row.init else None


def compare(row: Row, reference: Row | None) -> Interval | None:
    """Paired difference by seed; None: not tested, also while runs are missing."""
    if reference is None or row.missing or reference.missing:
        return None
    return paired_difference(row.by_seed(row.metric), reference.by_seed(row.metric))


def mean_of(row: Row) -> float:
    return row.summary(row.metric).mean


def verdict(tested: Interval | None, ours: float, theirs: float) -> str:
    """A difference in words, see ``RULES``."""
    if max(ours, theirs) < LEAST_AP:
        return TOO_LOW
    if tested is None:
        return UNTESTED
    return HELPS if tested.low > 0 else HURTS if tested.high < 0 else NO_DIFFERENCE


def _verdict_of(row: Row, reference: Row | None) -> str:
    return verdict(compare(row, reference), mean_of(row), mean_of(reference)) if reference else UNTESTED


# ---- labels that are saved -------------------------------------------------------------------------------------


def labels_needed(curve: Sequence[tuple[int, float]], value: float) -> float:
    """The number of labels at which a curve reaches a value.

    Args:
        curve: (labeled images, AP), in any order; between them AP is linear in the logarithm of the images,
            and where it falls the highest value before counts.

    Returns:
        0 for a value below the curve's first, infinity above its highest.
    """
    best, before = -math.inf, None
    for count, found in sorted(curve):
        if found >= value:
            if before is None:
                return float(count) if found == value else 0.0
            part = (value - best) / (found - best)
            return math.exp(math.log(before) + part * (math.log(count) - math.log(before)))
        if found > best:
            best = found
        before = count
    return math.inf


@dataclass(frozen=True)
class Needed:
    """Labels with which random weights reach what a start reaches with ``num_images``; the ends of its interval or
    None."""

    num_images: int
    mean: float
    low: float | None
    high: float | None
    first: int
    last: int

    def __str__(self) -> str:
        mean = self._shown(self.mean)
        return mean if self.low is None else f"{mean} [{self._shown(self.low)}, {self._shown(self.high)}]"

    def _shown(self, value: float) -> str:
        if math.isinf(value):
            return f"> {self.last:,}"
        return f"{value:,.0f}" if value else f"< {self.first:,}"

    @property
    def in_words(self) -> str:
        """What it saves, or costs."""
        if math.isinf(self.mean):
            return f"more than random weights reach with all {self.last:,} labeled images"
        if not self.mean:
            return f"less than random weights reach with {self.first:,} labeled images"
        saved = self.mean - self.num_images
        does = f"saves {saved:,.0f}" if saved >= 0 else f"costs {-saved:,.0f}"
        return f"what random weights reach with {self} labeled images, so it {does} of them"


def needed_by_random(row: Row, rows: Sequence[Row]) -> Needed | None:
    """See :class:`Needed`; None where random weights have one share alone, or runs lack."""
    reference = reference_row(row, rows)
    line = [
        r for r in rows if r.init == REFERENCE_INIT and schedule_of(r) == schedule_of(row) and not r.missing
    ]
    if reference is None or reference not in line or row.missing or len(line) < 2:
        return None
    curve = [(num_images_of(r), mean_of(r)) for r in line]
    at, tested = mean_of(reference), compare(row, reference)
    low, high = (
        (labels_needed(curve, at + end) for end in (tested.low, tested.high)) if tested else (None, None)
    )
    counts = sorted(count for count, _ in curve)
    return Needed(num_images_of(row), labels_needed(curve, mean_of(row)), low, high, counts[0], counts[-1])


# ---- what the page says ----------------------------------------------------------------------------------------


def study_table(rows: Sequence[Row]) -> Table:
    """One line a row: AP, difference to random weights, verdict, labels."""
    tuned = any("learning_rate" in _extra(row) for row in rows)
    metric = METRICS[rows[0].metric]
    header = ("labeled images", "iterations", "start", *(["learning rate"] if tuned else []), "n", metric)
    header += (f"{metric} − random [95 %]", "verdict", "labels that random needs")
    lines = []
    for row in rows:
        reference, is_random = reference_row(row, rows), row.init == REFERENCE_INIT
        rate = _extra(row).get("learning_rate")
        lines.append(
            (
                *(f"{num_images_of(row):,}", f"{row.iterations:,}", row.label),
                *([f"{rate:g}" if rate else "—"] if tuned else []),
                *(row.count, str(row.summary(row.metric))),
                "—" if is_random else str(compare(row, reference) or "not tested"),
                "—" if is_random else _verdict_of(row, reference),
                "—" if is_random else str(needed_by_random(row, rows) or "—"),
            )
        )
    return Table(header, tuple(lines), f"{RULES} {NEEDED}")


def others_table(rows: Sequence[Row]) -> Table | None:
    """Pre-training on the user's images against the other starts; None without such rows."""
    lines = []
    for row in rows:
        for other in OTHERS:
            reference = reference_row(row, rows, other)
            if row.init in OWN and reference:
                lines.append(
                    (
                        *(
                            f"{num_images_of(row):,}",
                            f"{row.iterations:,}",
                            f"{row.label} − {reference.label}",
                        ),
                        str(compare(row, reference) or "not tested"),
                        _verdict_of(row, reference),
                    )
                )
    header = ("labeled images", "iterations", "difference", f"{METRICS[rows[0].metric]} [95 %]", "verdict")
    return Table(header, tuple(lines), title="Against the other starts") if lines else None


def sentences(rows: Sequence[Row]) -> list[str]:
    """The answer in words: of the longest schedule, a sentence for each share of each own pre-training."""
    last = [row for row in rows if schedule_of(row) == schedule_of(rows[-1])]
    found = []
    for row in last:
        reference = reference_row(row, last)
        if row.init in OWN and reference:
            tested, metric = compare(row, reference), METRICS[row.metric]
            difference = f"; difference {tested} (95 % interval, {tested.n} seeds)" if tested else ""
            said = _verdict_of(row, reference)
            needed = needed_by_random(row, last) if said in (HELPS, HURTS) else None
            found.append(
                f"With {num_images_of(row):,} labeled images, pre-training on your own images ({row.label}): "
                f"{said}. {metric} {row.summary(row.metric)} against "
                f"{reference.summary(reference.metric)} from random weights{difference}."
                + (f" That is {needed.in_words}." if needed else "")
            )
    return found


def headline(rows: Sequence[Row]) -> list[str]:
    """The answer in a line for each own pre-training: the verdicts of the longest schedule, most labels first."""
    last = [row for row in rows if schedule_of(row) == schedule_of(rows[-1])]
    found = []
    for label in dict.fromkeys(row.label for row in last if row.init in OWN):
        said: dict[str, list[str]] = {}
        for row in sorted((row for row in last if row.label == label), key=num_images_of, reverse=True):
            if reference := reference_row(row, last):
                said.setdefault(_verdict_of(row, reference), []).append(f"{num_images_of(row):,}")
        verdicts = [f"{verdict} with {' and '.join(counts)}" for verdict, counts in said.items()]
        if verdicts:
            verdicts[0] += " labeled images"
            found.append(
                f"Pre-training on your own images ({label}) against random weights: {'; '.join(verdicts)}."
            )
    return found


def next_steps(rows: Sequence[Row]) -> list[str]:
    """What to try next, by rules on the verdicts of the longest schedule."""
    last = [row for row in rows if schedule_of(row) == schedule_of(rows[-1])]
    tested = [(row, reference_row(row, last)) for row in last if row.init in OWN]
    found = [_verdict_of(row, reference) for row, reference in tested if reference]
    steps = []
    if TOO_LOW in found:
        steps.append("a longer schedule for the shares on which nothing was learned yet (--iterations)")
    if HURTS in found:
        steps.append(
            "a learning rate for each start (--tune-lr), and a look at kNN below: if it did not rise, the "
            "pre-training failed"
        )
    if NO_DIFFERENCE in found:
        steps.append(
            "more seeds, which narrow the interval (--seeds 5); a longer pre-training "
            "(--pretrain-epochs), or more unlabeled images (--images)"
        )
    if UNTESTED in found:
        steps.append("the runs that are missing: give the same command again")
    if HELPS in found:
        steps.append("this start for your detector; more unlabeled images and epochs may add to it")
    if found[-1:] == [NO_DIFFERENCE] and HELPS in found:
        steps.append(
            "where labels are many, no pre-training at all: long schedules make starts alike (He et al. "
            "2019, Rethinking ImageNet Pre-training)"
        )
    if held := _held_by_schedule(last):
        steps.append(held)
    most = [row for row in last if num_images_of(row) == num_images_of(last[-1])]
    best = max(most, key=mean_of)
    if best.init not in (*OWN, REFERENCE_INIT):
        steps.append(f"{best.label} as the start: with all labels it has the highest mean here")
    return steps


def _held_by_schedule(rows: Sequence[Row]) -> str:
    """Where more labels bring random weights nothing in as many iterations, it is these that are too few."""
    line = [row for row in rows if row.init == REFERENCE_INIT and not row.missing]
    for few, more in itertools.pairwise(line):
        before, after = few.summary(few.metric), more.summary(more.metric)
        spread = max(before.std or 0.0, after.std or 0.0)
        if few.iterations == more.iterations and after.mean - before.mean <= spread:
            return (
                f"a longer schedule (--iterations, --schedules): in {more.iterations:,} iterations random "
                f"weights reach about the same with {num_images_of(few):,} and with {num_images_of(more):,} "
                "labeled images, so the iterations limit the result and not the labels"
            )
    return ""


def study_section(rows: Sequence[Row]) -> Section | None:
    """The section that opens the report; None where the runs are of no study."""
    rows = study_rows(rows)
    if not rows:
        return None
    picture = Picture("own", study_figure(rows), FIGURE, figure_caption(rows))
    blocks: list[Block] = [Text(sentence, lead=True) for sentence in headline(rows)]
    blocks += [picture, *(Text(sentence) for sentence in sentences(rows))]
    if steps := next_steps(rows):
        blocks.append(Text(f"To try next: {'; '.join(steps)}."))
    blocks.append(study_table(rows))
    if others := others_table(rows):
        blocks.append(others)
    return Section(TITLE, tuple(blocks))


def study_markdown(rows: Sequence[Row]) -> str:
    """The answer and its tables as Markdown, for a document; empty where the runs are of no study."""
    rows = study_rows(rows)
    if not rows:
        return ""
    tables = [study_table(rows), others_table(rows)]
    return "\n\n".join([*sentences(rows), *(markdown_table(table) for table in tables if table)])


def study_summary(rows: Sequence[Row]) -> str:
    """One line a schedule and share of the labels: AP of each start, and what pre-training adds."""
    rows = study_rows(rows)
    if not rows:
        return ""
    starts = list(dict.fromkeys(row.label for row in rows))
    ours = list(dict.fromkeys(row.label for row in rows if row.init in OWN))
    metric = METRICS[rows[0].metric]
    header = (
        "labeled images",
        "iterations",
        *(f"{metric}, {IN_WORDS.get(start, start)}" for start in starts),
    )
    header += tuple(f"{start} − random [95 %]" if len(ours) > 1 else "difference [95 %]" for start in ours)
    lines = []
    for images, iterations in dict.fromkeys((num_images_of(row), row.iterations) for row in rows):
        there = {
            row.label: row for row in rows if (num_images_of(row), row.iterations) == (images, iterations)
        }
        means = [str(there[start].summary(rows[0].metric)) if start in there else "—" for start in starts]
        tested = [compare(there[s], reference_row(there[s], rows)) if s in there else None for s in ours]
        lines.append(
            (f"{images:,}", f"{iterations:,}", *means, *(str(one or "not tested") for one in tested))
        )
    return markdown_table(Table(header, tuple(lines)))


def study_figure(rows: Sequence[Row]) -> bytes:
    """AP over the number of labeled images: one panel a schedule, one color a start."""
    schedules = list(dict.fromkeys(map(schedule_of, rows)))
    by_label = curve_colors([row.label for row in rows])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(0.4 + 2.8 * len(schedules))
        axes = figure.subplots(len(schedules), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, schedule in zip(axes, schedules, strict=True):
            members = [row for row in rows if schedule_of(row) == schedule]
            labels = list(dict.fromkeys(row.label for row in members))
            for number, label in enumerate(labels):
                points = [_point(row) for row in members if row.label == label]
                counts, means, halves = zip(*points, strict=True)
                beside = 1.02 ** (number - (len(labels) - 1) / 2)  # so that bars do not cover one another
                look = {
                    "color": by_label[label],
                    "marker": MARKERS[number % len(MARKERS)],
                    "ms": 4,
                    "lw": 1.8,
                    "elinewidth": 1.2,
                    "capsize": 3,
                }
                look["label"] = IN_WORDS.get(label, label)
                axis.errorbar([beside * count for count in counts], means, yerr=halves, **look)
            lengths = sorted({row.iterations for row in members})
            between = " to ".join(f"{length:,}" for length in dict.fromkeys((lengths[0], lengths[-1])))
            axis.set_title(f"{METRICS[rows[0].metric]}, {schedule} schedule ({between} iterations)")
            axis.set_xscale("log")
            axis.legend()
        ticks = sorted({num_images_of(row) for row in rows})
        axes[-1].set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes[-1].xaxis.set_minor_formatter(NullFormatter())
        axes[-1].set_xlabel("labeled images")
        axes[0].set_ylim(bottom=0)
        return to_png(figure, figure_caption(rows))


def figure_caption(rows: Sequence[Row]) -> str:
    """What the figure shows, in words and numbers."""
    shown = "; ".join(
        f"{num_images_of(row):,} labels, {row.iterations:,} iterations, {IN_WORDS.get(row.label, row.label)}: "
        f"{row.summary(row.metric)} (n = {row.count})"
        for row in rows
    )
    return f"{METRICS[rows[0].metric]} over labeled images. {shown}."


def _point(row: Row) -> tuple[int, float, float]:
    """Labeled images, mean, and half of the mean's 95 % interval (0 for fewer than three runs)."""
    values = row.by_seed(row.metric)
    interval = paired_difference(values, dict.fromkeys(values, 0.0))
    return num_images_of(row), mean_of(row), interval.high - interval.mean if interval else 0.0
