"""The statistics of a small number of runs: mean, sample standard deviation, paired 95 % t-interval."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

# Below this many pairs a t-interval says next to nothing (its quantile is 12.7 for two).
MIN_PAIRS = 3


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (ddof 1) of n values; one value has no deviation."""

    n: int
    mean: float
    std: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


@dataclass(frozen=True)
class Interval:
    """Mean of n paired differences and the limits of its 95 % interval."""

    n: int
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def summarize(values: Iterable[float]) -> Summary | None:
    """Summary of ``values``; None for no value at all."""
    values = list(values)
    if not values:
        return None
    return Summary(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def paired_difference(ours: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """Mean of ``ours - reference`` over the seeds of both, with its 95 % t-interval.

    Args:
        ours: seed -> value.
        reference: seed -> value.

    Returns:
        None (say "not tested") for fewer than MIN_PAIRS shared seeds.
    """
    seeds = sorted(ours.keys() & reference.keys())
    if len(seeds) < MIN_PAIRS:
        return None
    from scipy.special import stdtrit  # late: a machine without a network may have none, and runs without it

    summary = summarize(ours[seed] - reference[seed] for seed in seeds)
    quantile = float(stdtrit(summary.n - 1, 0.975))  # of Student's t, with 2.5 % above it
    half = quantile * summary.std / math.sqrt(summary.n)
    return Interval(summary.n, summary.mean, summary.mean - half, summary.mean + half)
