"""What ranks exchange: gathers of the global batch, with and without gradients, and the shuffle of the keys.

N: global batch, n: images on this rank, C: embedding length.
"""

import torch
from detectron2.utils import comm
from torch import Tensor

from moco_det.utils.seeding import torch_generator


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
