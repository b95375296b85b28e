"""Activation checkpointing: residual blocks that keep only their input until the backward pass."""

import contextlib

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck

from moco_det.modeling.grouped_batch_norm import recomputing


class _Recomputed:
    """Runs a block's forward pass again where gradients need it; stands before it in the order of resolution."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        return checkpoint(
            super().forward,
            x,
            use_reentrant=False,
            preserve_rng_state=False,  # a residual block uses no random numbers
            context_fn=lambda: (contextlib.nullcontext(), recomputing()),
        )


class RecomputedBasicBlock(_Recomputed, BasicBlock):
    """The recomputed block of ResNet-18 and 34."""


class RecomputedBottleneck(_Recomputed, Bottleneck):
    """The recomputed block of ResNet-50 and deeper."""


RECOMPUTED_BLOCKS = (RecomputedBasicBlock, RecomputedBottleneck)
