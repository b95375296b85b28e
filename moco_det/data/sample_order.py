"""The order in which a run takes its images: a function of the seed, for any number of processes.

Order of epoch e: the permutation keyed (seed, "order", e); batch t is its t-th slice, and rank r takes the r-th
contiguous block of a batch. A last slice that is not full is dropped, as in the official pre-training, or is a
smaller batch, as in the official linear protocol. A *slot* is one place in that order: (epoch, index of the
image).
"""

import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from moco_det.data.shards import Place
from moco_det.utils.seeding import numpy_generator

Slot = tuple[int, int]  # epoch, index of the image
OFFICIAL_PROCESSES = 8  # they share a smaller last batch equally, on any number of processes here


def steps_per_epoch(num_images: int, images_per_batch: int, drop_last: bool = True) -> int:
    """Batches of an epoch: images / batch, rounded down or, where the last smaller batch is kept, up.

    Raises:
        ValueError: there are fewer images than one batch takes.
    """
    if num_images < images_per_batch:
        raise ValueError(
            f"{num_images} images do not fill one batch: SOLVER.IMS_PER_BATCH is {images_per_batch}; "
            f"add images or set SOLVER.IMS_PER_BATCH to at most {num_images}"
        )
    return num_images // images_per_batch if drop_last else math.ceil(num_images / images_per_batch)


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the images in one epoch: a permutation, int64 of shape (num_images,)."""
    return numpy_generator(seed, "order", epoch).permutation(num_images)


def rank_batches(
    num_images: int,
    *,
    seed: int,
    images_per_batch: int,
    rank: int,
    world_size: int,
    start_iteration: int,
    drop_last: bool = True,
) -> Iterator[list[Slot]]:
    """The slots of one rank's batches, without end, from iteration ``start_iteration`` on.

    Args:
        drop_last: whether a last smaller batch is dropped. Otherwise it is filled up to a multiple of
            ``OFFICIAL_PROCESSES`` and of the ranks with the first images of the epoch's order, as torch's
            DistributedSampler fills it, though to no more than ``images_per_batch``.
    """
    steps = steps_per_epoch(num_images, images_per_batch, drop_last)
    rest, multiple = num_images % images_per_batch, math.lcm(OFFICIAL_PROCESSES, world_size)
    filled = min(math.ceil(rest / multiple) * multiple, images_per_batch)
    first_epoch, first_step = divmod(start_iteration, steps)
    for epoch in itertools.count(first_epoch):
        order = epoch_order(num_images, seed, epoch)
        order = np.concatenate([order, order[: filled - rest]])
        for step in range(first_step if epoch == first_epoch else 0, steps):
            batch = order[step * images_per_batch : (step + 1) * images_per_batch]
            size = len(batch) // world_size
            yield [(epoch, int(index)) for index in batch[rank * size : (rank + 1) * size]]


class PackedPaths(Sequence):
    """A read-only list of paths in one buffer, which workers share.

    A list of a million strings would be copied into each worker page by page, as reference counts change.
    """

    def __init__(self, paths: Iterable[str]):
        parts = (path.__getnewargs__() if isinstance(path, Place) else os.fspath(path) for path in paths)
        encoded = [json.dumps(part).encode() for part in parts]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        path = json.loads(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes())
        return path if isinstance(path, str) else Place(*path)
