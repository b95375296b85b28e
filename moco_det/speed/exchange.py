"""What the shuffle of the keys sends from rank to rank. Counted, not timed: it says the same for any network."""

from collections.abc import Iterator

import torch

from moco_det.speed.measurement import Measurement, amounts
from moco_det.speed.options import Options
from moco_det.speed.references import all_gather_bytes, bytes_of_shuffle
from moco_det.utils.seeding import torch_generator

RANKS = (2, 4, 8, 16, 32, 64)
TARGET_RANKS = 8  # as in the paper
PERMUTATIONS = 20


def measure_shuffle(options: Options) -> Iterator[Measurement]:
    """Bytes that the busiest rank sends in a step, on average, for rising numbers of ranks (a simulation)."""
    for ranks in RANKS:
        local = max(options.batch // TARGET_RANKS, 1)
        theirs = all_gather_bytes(local, ranks, options.size)
        sent = [
            max(bytes_of_shuffle(_permutation(local * ranks, step), ranks, options.size))
            for step in range(PERMUTATIONS)
        ]
        yield amounts(
            *("shuffle", f"shuffle, {local} images of {options.size} px on each of {ranks} ranks"),
            *("all-gather of the float images", theirs, sum(sent) // len(sent)),
            target=("<=", 1 / 16) if ranks == TARGET_RANKS else None,
            note="counted from the permutations of 20 steps, not timed",
        )


def _permutation(count: int, step: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch_generator(0, "shuffle", step))
