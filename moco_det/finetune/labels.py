"""Fewer labels: a share of the training images, the question of most users of pre-training."""

from collections.abc import Sequence

from detectron2.config import CfgNode

from moco_det.seeding import numpy_generator


def check_label_fraction(cfg: CfgNode) -> None:
    """
    Raises:
        ValueError: DATASETS.LABEL_FRACTION is no share.
    """
    if not 0 < cfg.DATASETS.LABEL_FRACTION <= 1:
        raise ValueError(
            f"DATASETS.LABEL_FRACTION is {cfg.DATASETS.LABEL_FRACTION}; expected a share of the training images "
            "above 0, up to 1"
        )


def take_labels(records: Sequence[dict], fraction: float, seed: int) -> list[dict]:
    """A random share of the labelled images, in their order; at least one.

    With the same seed a smaller share is a part of a larger one, and every init gets the same images.
    """
    if fraction == 1:
        return list(records)
    order = numpy_generator(seed, "labels").permutation(len(records))
    count = max(1, round(fraction * len(records)))
    return [records[index] for index in sorted(order[:count])]
