"""The statistics of a small number of runs: mean, sample standard deviation, paired 95 % t-interval."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(1, mean, None)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Summary(len(values), mean, math.sqrt(squares / (len(values) - 1)))


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
    summary = summarize(ours[seed] - reference[seed] for seed in seeds)
    half = t_quantile(summary.n - 1) * summary.std / math.sqrt(summary.n)
    return Interval(summary.n, summary.mean, summary.mean - half, summary.mean + half)


def t_quantile(degrees: int, level: float = 0.95) -> float:
    """The t with P(|T| <= t) = level for Student's t with an integer number of degrees of freedom."""
    low, high = 0.0, 1.0
    while _t_probability(high, degrees) < level:
        high *= 2
    for _ in range(80):  # bisection to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if _t_probability(middle, degrees) < level else (low, middle)
    return high


def _t_probability(t: float, degrees: int) -> float:
    """P(|T| <= t) in closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = cosine if odd else 1.0, 0.0
    for k in range(odd + 2, degrees + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
