"""The momentum encoder: a copy of the trained encoder, and the moving average with which it follows."""

import copy

import torch
from torch import nn


def make_key_encoder(encoder: nn.Module, trained: bool = False) -> nn.Module:
    """A copy of the query encoder that never receives gradients, unless it is to be trained."""
    key_encoder = copy.deepcopy(encoder)
    for parameter in key_encoder.parameters():
        parameter.requires_grad_(trained)
    return key_encoder


@torch.no_grad()
def momentum_update(key_encoder: nn.Module, query_encoder: nn.Module, momentum: float) -> None:
    """k <- m k + (1 - m) q for every parameter (MoCo v1, equation 2).

    Only parameters: the running statistics of the key encoder's batch norm are its own, as in the official
    code.
    """
    # k + (1 - m)(q - k): each weight is read and written once, all of them in a few kernels.
    keys, queries = list(key_encoder.parameters()), list(query_encoder.parameters())
    torch._foreach_lerp_(keys, queries, 1.0 - momentum)
