"""One row of the tables: a part, measured next to its reference."""

import dataclasses

from moco_det.speed.clock import Pair, Sample


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        part: name of the part, as ``--part`` takes it.
        what: the work, with its sizes.
        reference: what it stands next to.
        unit: of the two numbers, e.g. "images/s" or "MiB".
        theirs, ours: mean and standard deviation over the rounds.
        ratio: ours to the reference, the way round that the target counts.
        rounds: how often.
        target: what ``ratio`` should be, as (">=" or "<=", number); None: there is no target here.
        note: what a reader must know.
    """

    part: str
    what: str
    reference: str
    unit: str
    theirs: tuple[float, float]
    ours: tuple[float, float]
    ratio: tuple[float, float]
    rounds: int
    target: tuple[str, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the mean ratio is what it should be; None: there is no target."""
        if self.target is None:
            return None
        sign, wanted = self.target
        return self.ratio[0] >= wanted if sign == ">=" else self.ratio[0] <= wanted


def rates(part: str, what: str, reference: str, pair: Pair, **more) -> Measurement:
    """Measure units a second; the ratio says how many times as many ours does."""
    theirs, ours = (Sample(tuple(1 / s for s in sample.values)) for sample in (pair.reference, pair.ours))
    return _of_samples(part, what, reference, "images/s", theirs, ours, pair.speedup, **more)


def times(
    part: str, what: str, reference: str, pair: Pair, *, unit: str = "ms", inverse: bool = False, **more
) -> Measurement:
    """Measure milliseconds; the ratio says how many times faster ours is, or slower with ``inverse``."""
    theirs, ours = (Sample(tuple(1e3 * s for s in sample.values)) for sample in (pair.reference, pair.ours))
    ratio = pair.speedup
    if inverse:
        ratio = Sample(tuple(1 / value for value in ratio.values))
    return _of_samples(part, what, reference, unit, theirs, ours, ratio, **more)


def amounts(part: str, what: str, reference: str, theirs: int, ours: int, **more) -> Measurement:
    """Compare bytes, which are the same each time; the ratio is ours to theirs."""
    values = (theirs / 2**20, ours / 2**20, ours / max(theirs, 1))
    return _of_samples(part, what, reference, "MiB", *(Sample((value,)) for value in values), **more)


def _of_samples(part, what, reference, unit, theirs, ours, ratio, **more) -> Measurement:
    spread = [(sample.mean, sample.std) for sample in (theirs, ours, ratio)]
    return Measurement(part, what, reference, unit, *spread, len(ratio.values), **more)
