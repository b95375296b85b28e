"""What the methods with several crops of an image have in common: a few large ones, and small ones beside them.

n: images on this rank, V: crops of an image, the large ones first, J: outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def swapped_cross_entropy(targets: Sequence[Tensor], log_predictions: Sequence[Tensor]) -> Tensor:
    """The mean over images and pairs (target of a large crop, prediction from another crop) of the cross-entropy.

    Args:
        targets: a tensor (n, J) for each large crop, rows of which sum to 1.
        log_predictions: V tensors (n, J), log probabilities; the large crops first, in the order of the targets.

    Returns:
        a scalar.
    """
    losses = [
        -(target * prediction).sum(dim=1).mean()
        for i, target in enumerate(targets)
        for v, prediction in enumerate(log_predictions)
        if v != i
    ]
    return torch.stack(losses).mean()


def crops(batch: dict) -> list[Tensor]:
    """The crops of a step, the two large ones first: uint8 tensors (n, 3, side, side)."""
    return [batch["query"], batch["key"], *small_crops(batch)]


def small_crops(batch: dict) -> list[Tensor]:
    """The small crops of a step: V - 2 uint8 tensors (n, 3, s, s)."""
    return list(batch["small"].unbind(1)) if "small" in batch else []  # of n x (V - 2) x 3 x s x s
