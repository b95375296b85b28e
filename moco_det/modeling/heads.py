"""Projection and prediction heads: linear layers with batch norm and ReLU between them."""

import itertools
from collections.abc import Sequence

from torch import nn

from moco_det.modeling.grouped_batch_norm import GroupedBatchNorm1d


def mlp(
    widths: Sequence[int], bn_group_size: int | None, last_norm: bool = False, last_affine: bool = True
) -> nn.Sequential:
    """Linear, batch norm, ReLU, …, linear: (n, widths[0]) -> (n, widths[-1]).

    Args:
        widths: of the input, the hidden layers and the output.
        bn_group_size: images that batch norm normalizes together, a part of the global batch; None: no batch norm.
        last_norm: batch norm after the last layer too.
        last_affine: that one has a scale and a shift.
    """
    layers: list[nn.Module] = []
    pairs = list(itertools.pairwise(widths))
    for number, (inputs, outputs) in enumerate(pairs, 1):
        last = number == len(pairs)
        norm = bn_group_size is not None and (last_norm or not last)
        layers.append(nn.Linear(inputs, outputs, bias=not norm))  # batch norm would take a bias away again
        if norm:
            layers.append(GroupedBatchNorm1d(outputs, bn_group_size, affine=last_affine or not last))
        if not last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
