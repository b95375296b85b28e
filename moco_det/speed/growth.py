"""What a step costs as the work grows: negatives, batch, size of the views. No reference, no target."""

import dataclasses
from collections.abc import Iterator

from moco_det.speed.clock import Sample, peak_bytes, seconds_a_unit
from moco_det.speed.model import loss_work, our_step
from moco_det.speed.options import Options


@dataclasses.dataclass(frozen=True)
class Cost:
    """A point of a curve.

    Attributes:
        grows: what grows, e.g. "K".
        value: its value here.
        what: the work.
        milliseconds: mean and standard deviation of a step over the rounds.
        memory_mib: the most that a step adds to what is held between steps; None: not known on this system.
        rounds: how often it was timed.
    """

    grows: str
    value: int
    what: str
    milliseconds: tuple[float, float]
    memory_mib: float | None
    rounds: int


def measure_growth(options: Options) -> Iterator[Cost]:
    """Loss against K, and the whole step against batch and size of the views."""
    for keys in options.queues:
        what = f"logits and loss, N {options.queries}"
        yield _cost("K", keys, what, options, loss_work, (True, options.queries, keys, options.device))
    fastest = options.precisions[-1]
    for batch in sorted({max(int(part * options.batch), 2) for part in options.batches}):
        sized = dataclasses.replace(options, batch=batch)
        what = f"MoCo v2 step, {options.arch}, {options.size} px, {fastest}"
        yield _cost("batch", batch, what, options, our_step, (sized, fastest, True), batch)
    for size in options.sizes:
        sized = dataclasses.replace(options, size=size)
        what = f"MoCo v2 step, {options.arch}, {options.batch} images, {fastest}"
        yield _cost("size", size, what, options, our_step, (sized, fastest, True), options.batch)


def _cost(
    grows: str, value: int, what: str, options: Options, make, arguments: tuple, units: int = 1
) -> Cost:
    work = make(*arguments)
    work()
    times = Sample(
        tuple(
            1e3 * units * seconds_a_unit(work, options.seconds, options.device) for _ in range(options.rounds)
        )
    )
    del work
    memory = peak_bytes(make, arguments, options.device)
    return Cost(
        *(grows, value, what, (times.mean, times.std)),
        *(None if memory is None else memory / 2**20, options.rounds),
    )
