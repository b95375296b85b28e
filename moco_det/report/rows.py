"""Groups runs into the rows of a table: what is averaged with what, and what is compared with what.

A row is one init of one task and schedule. Runs that differ in config, code or weights never share a row:
they become variants (a), (b) …, and a note says in what they differ.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from moco_det.report.runs import Incomplete, Run
from moco_det.report.statistics import Interval, Summary, paired_difference, summarize

REFERENCE_INIT = "random"


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed; ``missing`` counts those that are planned and not finished."""

    stage: str
    task: str
    iterations: int
    init: str
    variant: str
    runs: tuple[Run, ...]
    missing: int = 0

    @property
    def metric(self) -> str | None:
        """The metric by which rows are compared; None for pre-training."""
        return self.runs[0].metric

    @property
    def count(self) -> str:
        """n for a table: ``"3"``, or ``"3 of 5"`` while runs are missing."""
        return f"{len(self.runs)} of {len(self.runs) + self.missing}" if self.missing else str(len(self.runs))

    @property
    def label(self) -> str:
        return f"{self.init} ({self.variant})" if self.variant else self.init

    @property
    def comparison(self) -> tuple:
        """Rows with the same value differ in the init alone, so their difference means something."""
        return self.stage, self.task, self.iterations, self.runs[0].recipe_hash, self.runs[0].commit

    @property
    def minutes(self) -> float:
        return sum(run.minutes for run in self.runs) / len(self.runs)

    @property
    def memory(self) -> float | None:
        """The most memory that a run held, in GiB: of the GPU, or of the machine for a run on the CPU."""
        values = (run.record["extra"].get("peak_memory_gib") for run in self.runs)
        return max((value for value in values if value is not None), default=None)

    @property
    def machines(self) -> str:
        return "; ".join(dict.fromkeys(run.machine for run in self.runs))

    def summary(self, metric: str) -> Summary | None:
        return summarize(run.metrics[metric] for run in self.runs if metric in run.metrics)

    def at_start(self, metric: str) -> Summary | None:
        """The metric before the first iteration, where TEST.EVAL_AT_START measured it."""
        starts = [run.curves[metric][0] for run in self.runs if run.curves.get(metric)]
        return summarize(value for iteration, value in starts if iteration == 0)

    def by_seed(self, metric: str) -> dict[int, float]:
        # A negative seed means a random one in detectron2: such runs pair with none.
        return {run.seed: run.metrics[metric] for run in self.runs if run.seed >= 0 and metric in run.metrics}


def build_rows(runs: Sequence[Run], incomplete: Sequence[Incomplete] = ()) -> tuple[list[Row], list[str]]:
    """Rows in reading order (random init first), and a note on each thing that was set apart."""
    missing = Counter(entry.row for entry in incomplete)
    groups = defaultdict(list)
    for run in runs:
        groups[run.stage, run.task, run.iterations, run.init].append(run)
    rows, notes = [], []
    for (stage, task, iterations, init), members in groups.items():
        variants = defaultdict(list)
        for run in sorted(members, key=lambda run: (run.seed, run.record["finished"])):
            variants[run.config_hash, run.commit, run.weights].append(run)
        if len(variants) > 1:
            notes.append(_describe_variants(task, iterations, init, variants))
        for number, alike in enumerate(variants.values()):
            letter = chr(ord("a") + number) if len(variants) > 1 else ""
            kept, dropped = _newest_of_each_seed(alike)
            lacking = missing[task, iterations, init]
            rows.append(Row(stage, task, iterations, init, letter, tuple(kept), lacking))
            notes += [
                f"{task}, {init}, seed {run.seed} ran more than once; the older {run.folder.name} is left out"
                for run in dropped
            ]
    places = {REFERENCE_INIT: 0, "supervised_torchvision": 1, "supervised_msra": 2}
    rows.sort(
        key=lambda row: (row.stage, row.task, row.iterations, places.get(row.init, 9), row.init, row.variant)
    )
    return rows, notes


def _describe_variants(task: str, iterations: int, init: str, variants: dict) -> str:
    kinds = zip(("config", "commit", "weights"), zip(*variants, strict=True), strict=True)
    differing = " and ".join(name for name, column in kinds if len(set(column)) > 1)
    letters = ", ".join(f"({chr(ord('a') + number)})" for number in range(len(variants)))
    start = "" if init == "none" else f", {init}"
    return (
        f"{task}, {iterations:,} iterations{start}: runs of different {differing} stand apart, as {letters}"
    )


def _newest_of_each_seed(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    # Twice the same seed is the same experiment: averaging both would count it twice.
    newest = {run.seed: run for run in runs if run.seed >= 0}
    kept = [run for run in runs if run.seed < 0 or newest[run.seed] is run]
    return kept, [run for run in runs if run not in kept]


def difference(row: Row, reference: Row, metric: str) -> Interval | None:
    """Paired difference by seed, ``row - reference``; None = "not tested", also while runs are missing."""
    if row.comparison != reference.comparison or row.missing or reference.missing:
        return None
    return paired_difference(row.by_seed(metric), reference.by_seed(metric))


def reference_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The random-init row of the same task, schedule, recipe and commit; None if there is not exactly one."""
    found = [other for other in rows if other.init == REFERENCE_INIT and other.comparison == row.comparison]
    return found[0] if len(found) == 1 and row.init != REFERENCE_INIT else None


def pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """All (row, reference) pairs that differ in the init alone, references first in reading order."""
    return [
        (row, reference)
        for index, reference in enumerate(rows)
        for row in rows[index + 1 :]
        if row.comparison == reference.comparison and row.init != reference.init
    ]
