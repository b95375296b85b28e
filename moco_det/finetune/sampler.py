"""The training data of detectron2's sampler, from any iteration on: what --resume needs."""

import itertools
from collections.abc import Iterator

from detectron2.data.samplers import TrainingSampler
from torch.utils.data import Sampler


class ResumableSampler(Sampler):
    """``TrainingSampler`` without the images of the first batches.

    detectron2 batches images of like orientation, so images wait in two buckets until one is full. Those that
    wait when a run stops are given out first when it goes on, and batches are the same as without the stop.
    (With several workers, detectron2 deals batch-sized pieces of the stream to them; then the images before a
    stop and after it are the same ones up to those pieces.)
    """

    def __init__(self, wide: list[bool], batch_size: int, seed: int, batches: int = 0):
        """
        Args:
            wide: for each image of the data set, in which of the two buckets it goes.
            batch_size: images of a batch on this process.
            seed: of the shuffle; the same on all processes.
            batches: how many batches to leave out.
        """
        self._stream = TrainingSampler(len(wide), seed=seed)
        self._wide, self._batch_size, self._batches = wide, batch_size, batches

    def __iter__(self) -> Iterator[int]:
        stream = iter(self._stream)
        buckets = {False: [], True: []}
        done = 0
        while done < self._batches:
            image = next(stream)
            bucket = buckets[self._wide[image]]
            bucket.append(image)
            if len(bucket) == self._batch_size:
                bucket.clear()
                done += 1
        yield from itertools.chain(*buckets.values(), stream)
