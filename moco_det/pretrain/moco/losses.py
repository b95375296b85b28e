"""The losses of a query, its key and K negatives, as pure functions.

N: queries, K: negatives.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE: the log loss of a (K+1)-way softmax that picks the positive (MoCo v1, equation 1).

    Args:
        positive: (N,) similarity of each query with its positive key.
        negatives: (N, K) similarities of each query with the dictionary.
        temperature: tau > 0.

    Returns:
        the mean over the queries, a scalar.
    """
    logits = torch.cat([positive[:, None], negatives], dim=1)  # Nx(1+K)
    logits /= temperature  # in place, since it is large
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def nce(
    positive: Tensor, negatives: Tensor, temperature: float, normalizer: Tensor, num_images: int
) -> Tensor:
    """Noise-contrastive estimation: is a bank's entry the query's own, or sampled? (InstDisc, equations 4 to 7).

    P(i|v) = exp(v.f_i / tau) / Z is the probability that query v is image i, 1/n that of sampling its entry, and
    h = P / (P + K/n) that an entry of the 1 + K is the query's own.

    Args:
        positive: (N,) similarity of each query with the entry of its image.
        negatives: (N, K) similarities of each query with K entries sampled uniformly.
        temperature: tau > 0.
        normalizer: Z, a scalar.
        num_images: n, entries in the bank.

    Returns:
        -log h(positive) - sum over the negatives of log(1 - h(negative)), the mean over the queries, a scalar.
    """
    # h is the sigmoid of log P - log(K/n).
    shift = normalizer.log() + math.log(negatives.shape[1] / num_images)
    own = F.logsigmoid(positive / temperature - shift)  # N
    sampled = F.logsigmoid(shift - negatives / temperature)  # NxK, log(1 - h)
    return -(own + sampled.sum(dim=1)).mean()
