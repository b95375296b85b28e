"""Batch norm over groups of the global batch, and the shuffle of the keys over these groups.

The official code normalizes the images of each GPU by themselves: on 8 GPUs a batch of 256 makes 8 groups of
32. Here the group is a number of the recipe, so one device computes what eight would, and a group may span
several ranks. Queries are grouped in the order of the batch; keys are first shuffled over the whole global
batch, so that a query and its key see different statistics ("shuffling BN", MoCo v1, section 3.3).

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

from moco_det.utils.seeding import torch_generator


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
    """Of feature maps."""


class GroupedBatchNorm1d(_GroupedBatchNorm, nn.BatchNorm1d):
    """Of vectors, one an image."""


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
    # Keyed by the world, which is another one after the processes were joined anew.
    if size == world.size():
        return world
    return torch.distributed.new_subgroups(size)[0]


def gather(x: Tensor) -> Tensor:
    """Concatenate the ranks' tensors of equal shape: (n, ...) -> (N, ...), in the order of the global batch."""
    if comm.get_world_size() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(comm.get_world_size())]
    torch.distributed.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def local_block(x: Tensor) -> Tensor:
    """This rank's contiguous block of a global batch: (N, ...) -> (n, ...)."""
    return x.chunk(comm.get_world_size())[comm.get_rank()]


def draw_permutation(count: int, shuffled: bool, seed: int, purpose: str, iteration: int) -> Tensor:
    """The order in which :func:`shuffle` takes the images of a global batch: int64 (N,) on the CPU.

    Args:
        count: n.
        shuffled: False: they stay where they are.
        seed, purpose, iteration: what the permutation is drawn from; two purposes never share one.
    """
    total = count * comm.get_world_size()
    if not shuffled:
        return torch.arange(total)
    return torch.randperm(total, generator=torch_generator(seed, purpose, iteration))


def shuffle(images: Tensor, permutation: Tensor) -> Tensor:
    """Shuffle images across ranks: this rank's images -> its block of the permuted global batch.

    Each image travels once, to the rank that takes it, instead of from every rank to every other one.

    Args:
        images: (n, ...) this rank's block.
        permutation: (N,) of the global batch, the same on all ranks; on the CPU, see :func:`draw_permutation`.
    """
    ranks, rank, count = comm.get_world_size(), comm.get_rank(), len(images)
    if ranks == 1:
        return images[permutation.to(images.device)]
    wanted = permutation.view(ranks, count)  # which image each rank takes at each place of its block
    owner = wanted // count
    mine = owner == rank
    sent = images[(wanted[mine] - rank * count).to(images.device)]  # for rank 0, then for rank 1, ...
    received = torch.empty_like(sent)
    torch.distributed.all_to_all_single(
        received, sent, owner[rank].bincount(minlength=ranks).tolist(), mine.sum(dim=1).tolist()
    )
    # They come by sender, and of each sender in the order of their places.
    return received[owner[rank].argsort(stable=True).argsort().to(images.device)]


class _GatherWithGradient(torch.autograd.Function):
    """:func:`gather`; a rank's tensor gets the gradients of what all ranks made of it."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient)  # gloo has no reduce_scatter
        return local_block(gradient)


def gather_with_gradient(x: Tensor) -> Tensor:
    """:func:`gather` through which gradients flow back: (n, ...) -> (N, ...).

    They are summed over the ranks: where each rank's loss is the mean over its own images and gradients of the
    weights are averaged, that is the gradient of the mean over all images.
    """
    return x if comm.get_world_size() == 1 else _GatherWithGradient.apply(x)


def unshuffle(embeddings: Tensor, permutation: Tensor) -> Tensor:
    """Undo :func:`shuffle`: this rank's (n, C) -> the whole global batch (N, C) in its own order.

    Gradients flow back as through :func:`gather_with_gradient`.
    """
    return gather_with_gradient(embeddings)[permutation.argsort().to(embeddings.device)]
