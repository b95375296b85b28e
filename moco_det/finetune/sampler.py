"""Which images training sees, in which order: a fraction of the labels, a sampler that --resume continues."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from torch.utils.data import Sampler

from moco_det.utils.seeding import numpy_generator


def take_labels(records: Sequence[dict], fraction: float, seed: int) -> list[dict]:
    """A random fraction of the labeled images, in their order; at least one.

    With the same seed a smaller fraction is a part of a larger one, and every init gets the same images.
    """
    if fraction == 1:
        return list(records)
    order = numpy_generator(seed, "labels").permutation(len(records))
    count = max(1, round(fraction * len(records)))
    return [records[index] for index in sorted(order[:count])]


class ResumableSampler(Sampler):
    """``TrainingSampler`` or ``RepeatFactorTrainingSampler`` without the images of the first batches.

    detectron2 batches images of like orientation, so images wait in two buckets until one is full. Those that
    wait when a run stops are given out first when it resumes, and batches are the same as without the stop.
    (With several workers, detectron2 hands batch-sized pieces of the stream to them; then the images before a
    stop and after it are the same ones up to those pieces.)
    """

    def __init__(
        self,
        wide: list[bool],
        batch_size: int,
        seed: int,
        batches: int = 0,
        repeat_factors: torch.Tensor | None = None,
    ):
        """
        Args:
            wide: for each image of the data set, in which of the two buckets it goes.
            batch_size: images of a batch on this process.
            seed: of the shuffle; the same on all processes.
            batches: how many batches to leave out.
            repeat_factors: how often each image comes in an epoch, on average; None: once.
        """
        if repeat_factors is None:
            self._stream = TrainingSampler(len(wide), seed=seed)
        else:
            self._stream = RepeatFactorTrainingSampler(repeat_factors, seed=seed)
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


def repeat_factors(cfg: CfgNode, dataset: list[dict]) -> torch.Tensor | None:
    """How often DATALOADER.SAMPLER_TRAIN repeats each image, by detectron2's rule; None: no image is repeated."""
    if cfg.DATALOADER.SAMPLER_TRAIN != "RepeatFactorTrainingSampler":
        return None
    # The key is newer than detectron2 0.6, which always takes the square root.
    options = {"sqrt": cfg.DATALOADER.REPEAT_SQRT} if "REPEAT_SQRT" in cfg.DATALOADER else {}
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dataset, cfg.DATALOADER.REPEAT_THRESHOLD, **options
    )
