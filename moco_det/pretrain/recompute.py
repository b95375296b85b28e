"""Activation checkpointing: residual blocks that keep only their input until the backward pass."""

import contextlib

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck

from moco_det.modeling.grouped_batch_norm import recomputing


class _Recomputed:
    """Before a block in the order of resolution: its forward pass is run again where gradients need it."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        return checkpoint(
            super().forward,
            x,
            use_reentrant=False,
            preserve_rng_state=False,  # a residual block draws nothing
            context_fn=lambda: (contextlib.nullcontext(), recomputing()),
        )


class RecomputedBasicBlock(_Recomputed, BasicBlock):
    """Of ResNet-18 and 34."""


class RecomputedBottleneck(_Recomputed, Bottleneck):
    """Of ResNet-50 and deeper."""


RECOMPUTED_BLOCKS = (RecomputedBasicBlock, RecomputedBottleneck)
