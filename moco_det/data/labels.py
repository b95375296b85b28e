"""Fewer labels: a share of the training images, the question of most users of pre-training."""

from collections.abc import Sequence

from moco_det.utils.seeding import numpy_generator


def take_labels(records: Sequence[dict], fraction: float, seed: int) -> list[dict]:
    """A random share of the labeled images, in their order; at least one.

    With the same seed a smaller share is a part of a larger one, and every init gets the same images.
    """
    if fraction == 1:
        return list(records)
    order = numpy_generator(seed, "labels").permutation(len(records))
    count = max(1, round(fraction * len(records)))
    return [records[index] for index in sorted(order[:count])]
