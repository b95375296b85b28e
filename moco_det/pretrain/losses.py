"""A loss that several methods share.

n: images on this rank, V: crops of an image (the large ones first), J: outputs.
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
