"""Contrastive losses as pure functions of similarities.

N: queries, C: embedding length, K: negatives.
"""

import torch
from torch import Tensor


def info_nce(positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE: the log loss of a (K+1)-way softmax that picks the positive (MoCo v1, equation 1).

    Args:
        positive: (N,) similarity of each query with its own key.
        negatives: (N, K) similarities of each query with the dictionary.
        temperature: tau > 0.

    Returns:
        the mean over the queries, a scalar.
    """
    positive = positive / temperature  # N
    negatives = negatives / temperature  # NxK
    # log(e^p + sum_j e^nj) - p: cross-entropy with label 0, without building the Nx(1+K) logits.
    return (torch.logaddexp(positive, negatives.logsumexp(dim=1)) - positive).mean()
