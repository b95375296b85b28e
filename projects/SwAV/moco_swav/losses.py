"""Codes by Sinkhorn-Knopp and the swapped prediction (Caron et al. 2020, arXiv 2006.09882), as pure functions.

n: images on this rank, N: in the global batch, J: prototypes (K in the paper), V: crops of an image.
"""

from collections.abc import Sequence

import torch
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F

from moco_det.pretrain.losses import swapped_cross_entropy


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft codes of the global batch, spread evenly over the prototypes (section 3.1, equations 3 to 5).

    Alternately makes each prototype take the same mass from the N rows of all ranks, and each row give mass 1.

    Args:
        scores: (n, J) products of embeddings and prototypes, on each rank its rows.
        epsilon: of the entropy, > 0; the smaller, the harder the codes.
        iterations: rounds, at least 1.

    Returns:
        (n, J) codes; a row sums to 1.
    """
    scores = scores / epsilon
    # A common factor of all codes changes none: the largest one keeps exp from overflowing.
    codes = (scores - _over_ranks(scores.max(), "MAX")).exp()  # nxJ
    for _ in range(iterations):
        masses = _over_ranks(codes.sum(dim=0), "SUM")  # J
        codes = codes / masses.clamp(min=torch.finfo(codes.dtype).tiny)
        codes = codes / codes.sum(dim=1, keepdim=True).clamp(min=torch.finfo(codes.dtype).tiny)
    return codes


def _over_ranks(x: Tensor, how: str) -> Tensor:
    if comm.get_world_size() > 1:
        x = x.contiguous()
        torch.distributed.all_reduce(x, getattr(torch.distributed.ReduceOp, how))
    return x


def swapped_prediction(scores: Sequence[Tensor], codes: Sequence[Tensor], temperature: float) -> Tensor:
    """The mean over pairs (code of a global crop, prediction from another crop): equations 2 and 6.

    Args:
        scores: V tensors (n, J), the global crops first.
        codes: a tensor (n, J) for each global crop.
        temperature: tau > 0.

    Returns:
        a scalar, the mean over images too.
    """
    predictions = [F.log_softmax(score / temperature, dim=1) for score in scores]
    return swapped_cross_entropy(codes, predictions)
