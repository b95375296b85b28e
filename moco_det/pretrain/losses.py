"""Contrastive losses as pure functions of similarities.

N: queries, C: embedding length, K: negatives.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE: the log loss of a (K+1)-way softmax that picks the positive (MoCo v1, equation 1).

    Args:
        positive: (N,) similarity of each query with its own key.
        negatives: (N, K) similarities of each query with the dictionary.
        temperature: tau > 0.

    Returns:
        the mean over the queries, a scalar.
    """
    return _InfoNCE.apply(positive, negatives, temperature)


class _InfoNCE(torch.autograd.Function):
    """log(e^p + sum_j e^nj) - p: cross-entropy with label 0, without building the Nx(1+K) logits.

    A second array of N x K, the gradient, is made in the backward pass and none before.
    """

    ROWS = 32  # queries at a time in the forward pass

    @staticmethod
    def forward(ctx, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
        rows = negatives.split(_InfoNCE.ROWS)
        others = torch.cat([(part / temperature).logsumexp(dim=1) for part in rows])  # N
        scaled = positive / temperature  # N
        total = torch.logaddexp(scaled, others)  # N
        ctx.save_for_backward(positive, negatives, total)
        ctx.temperature = temperature
        return (total - scaled).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        positive, negatives, total = ctx.saved_tensors
        scale = gradient / (len(total) * ctx.temperature)
        own = (positive / ctx.temperature - total).exp() - 1  # N, probability - 1
        drawn = (negatives / ctx.temperature).sub_(total[:, None]).exp_()  # NxK, probabilities
        return own * scale, drawn.mul_(scale), None


def nce(
    positive: Tensor, negatives: Tensor, temperature: float, normaliser: Tensor, num_images: int
) -> Tensor:
    """Noise-contrastive estimation: is a bank's entry the query's own, or drawn? (InstDisc, equations 4 to 7).

    P(i|v) = exp(v.f_i / tau) / Z is the probability that query v is image i, 1/n that of drawing its entry, and
    h = P / (P + K/n) that an entry of the 1 + K is the query's own.

    Args:
        positive: (N,) similarity of each query with the entry of its image.
        negatives: (N, K) similarities of each query with K entries drawn uniformly.
        temperature: tau > 0.
        normaliser: Z, a scalar.
        num_images: n, entries in the bank.

    Returns:
        -log h(positive) - sum over the negatives of log(1 - h(negative)), the mean over the queries, a scalar.
    """
    # h is the sigmoid of log P - log(K/n).
    shift = normaliser.log() + math.log(negatives.shape[1] / num_images)
    own = F.logsigmoid(positive / temperature - shift)  # N
    drawn = F.logsigmoid(shift - negatives / temperature)  # NxK, log(1 - h)
    return -(own + drawn.sum(dim=1)).mean()
