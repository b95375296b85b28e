"""Batch norm over groups of the global batch.

The official code normalizes the images of each GPU by themselves: on 8 GPUs a batch of 256 makes 8 groups of
32. Here the group is a number of the recipe, so one device computes what eight would, and a group may span
several ranks. Queries are grouped in the order of the batch; keys are first shuffled over the whole global
batch (:func:`moco_det.modeling.collectives.shuffle`), so that a query and its key see different statistics
("shuffling BN", MoCo v1, section 3.3).

N: global batch, n: images on this rank (in this micro-batch), G: images in a group.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F


def bn_group_size(cfg) -> int:
    """Images that batch norm normalizes together; synchronized, it is one group of the whole global batch."""
    return cfg.SOLVER.IMS_PER_BATCH if cfg.MODEL.ENCODER.NORM == "SyncBN" else cfg.MODEL.ENCODER.BN_GROUP_SIZE


class _GroupedBatchNorm:
    """Batch norm whose training statistics are those of consecutive groups of images of the global batch.

    Parameters and buffers have the names and shapes of torch's own class. In training the running statistics
    change only by :func:`update_running_statistics`, once a step: towards the mean over the groups of group
    mean and unbiased group variance, however many micro-batches the step takes.
    """

    def __init__(self, num_features: int, group_size: int, affine: bool = True):
        """
        Args:
            group_size: G. Either the n images of a forward pass are whole groups, or a group is made of the n
                images of each of G / n consecutive ranks.
            affine: whether it has a scale and a shift.
        """
        super().__init__(num_features, affine=affine)
        self.group_size = group_size
        for name, value in (("mean_sum", self.running_mean), ("variance_sum", self.running_var)):
            self.register_buffer(name, torch.zeros_like(value), persistent=False)
        self.groups_seen = 0

    def forward(self, x: Tensor) -> Tensor:  # nxCxHxW, or nxC
        if not self.training:
            return super().forward(x)
        if self.group_size > x.shape[0]:
            return self._group_over_ranks(x)
        assert x.shape[0] % self.group_size == 0, f"{x.shape[0]} images are not groups of {self.group_size}"
        groups = []
        for group in x.split(self.group_size):
            # With momentum 1 the "running" statistics that batch_norm writes are those of this group.
            mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
            groups.append(
                F.batch_norm(group, mean, variance, self.weight, self.bias, True, 1.0, self.eps)  # GxCxHxW
            )
            self._note(mean, variance)
        return groups[0] if len(groups) == 1 else torch.cat(groups)  # cat would copy a single one

    def _group_over_ranks(self, x: Tensor) -> Tensor:  # nxCxHxW, or nxC
        """The same over a group that several ranks hold; sums in float32 at least, two passes."""
        assert self.group_size % x.shape[0] == 0, f"a group of {self.group_size} on ranks with {x.shape[0]}"
        ranks = subgroup_of_ranks(self.group_size // x.shape[0])
        values = x.to(self.running_mean.dtype)
        over = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        count = self.group_size * x[0, 0].numel()
        mean = all_reduce(values.sum(over), group=ranks) / count  # C
        centered = values - mean.view(shape)
        variance = all_reduce(centered.square().sum(over), group=ranks) / count  # C
        self._note(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        scale = torch.rsqrt(variance + self.eps)  # C
        if self.weight is None:
            return (centered * scale.view(shape)).to(x.dtype)
        scale = self.weight * scale
        return (centered * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor) -> None:
        if not _recomputing.get():
            self.mean_sum += mean
            self.variance_sum += variance
            self.groups_seen += 1

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, group_size={self.group_size}"


class GroupedBatchNorm2d(_GroupedBatchNorm, nn.BatchNorm2d):
    """Batch norm of groups of images, over feature maps."""


class GroupedBatchNorm1d(_GroupedBatchNorm, nn.BatchNorm1d):
    """Batch norm of groups of images, over one vector per image."""


_recomputing = contextvars.ContextVar("recomputing", default=False)


@contextlib.contextmanager
def recomputing() -> Iterator[None]:
    """A forward pass in here repeats an earlier one, as activation checkpointing does: its groups do not count."""
    token = _recomputing.set(True)
    try:
        yield
    finally:
        _recomputing.reset(token)


@torch.no_grad()
def update_running_statistics(model: nn.Module) -> None:
    """End a step: one momentum update of the running statistics, with the groups seen since the last one."""
    for module in model.modules():
        if isinstance(module, _GroupedBatchNorm) and module.groups_seen:
            module.running_mean.lerp_(module.mean_sum / module.groups_seen, module.momentum)
            module.running_var.lerp_(module.variance_sum / module.groups_seen, module.momentum)
            module.num_batches_tracked += 1
            module.mean_sum.zero_()
            module.variance_sum.zero_()
            module.groups_seen = 0


@torch.no_grad()
def average_running_statistics(model: nn.Module) -> None:
    """Make the running statistics those of all ranks' groups.

    Ranks start equal and take equal momentum steps, so the mean of their running statistics is the running
    mean over all groups: averaging when the statistics are read is exact, and costs no step anything.
    """
    if comm.get_world_size() == 1:
        return
    for buffer in _running_statistics(model):
        torch.distributed.all_reduce(buffer)
        buffer /= comm.get_world_size()


def own_running_statistics(model: nn.Module) -> Tensor:
    """This rank's running means and variances, one after the other, before they are averaged."""
    return torch.cat([buffer.flatten() for buffer in _running_statistics(model)] or [torch.empty(0)])


@torch.no_grad()
def set_running_statistics(model: nn.Module, values: Tensor) -> None:
    """Undo what happened since :func:`own_running_statistics` gave ``values``."""
    buffers = list(_running_statistics(model))
    for buffer, part in zip(buffers, values.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def _running_statistics(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        if isinstance(module, _GroupedBatchNorm):
            yield from (module.running_mean, module.running_var)


def subgroup_of_ranks(size: int):
    """The process group of the ``size`` consecutive ranks that this rank is in; its first call is collective."""
    return _subgroups(size, torch.distributed.group.WORLD)


@functools.lru_cache
def _subgroups(size: int, world):
    # Keyed by the world, which is another one after the processes were joined again.
    if size == world.size():
        return world
    return torch.distributed.new_subgroups(size)[0]
