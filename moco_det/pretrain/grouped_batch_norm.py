"""Batch norm over groups of the global batch, and the shuffle of the keys over these groups.

The official code normalises the images of each GPU by themselves: on 8 GPUs a batch of 256 makes 8 groups of
32. Here the group is a number of the recipe, so one device computes what eight would. Queries are grouped in
the order of the batch; keys are first shuffled over the whole global batch, so that a query and its key see
different statistics ("shuffling BN", MoCo v1, section 3.3).

N: global batch, n: images on this rank, G: images in a group.
"""

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of consecutive groups of images.

    Parameters and buffers have the names and shapes of ``nn.BatchNorm2d``. The running statistics take one
    momentum step a forward pass, towards the mean over the groups of group mean and unbiased group variance.
    """

    def __init__(self, num_features: int, group_size: int):
        super().__init__(num_features)
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:  # nxCxHxW
        if not self.training:
            return super().forward(x)
        assert x.shape[0] % self.group_size == 0, f"{x.shape[0]} images are not groups of {self.group_size}"
        groups, means, variances = [], [], []
        for group in x.split(self.group_size):
            # With momentum 1 the "running" statistics that batch_norm writes are those of this group.
            mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
            groups.append(
                F.batch_norm(group, mean, variance, self.weight, self.bias, True, 1.0, self.eps)  # GxCxHxW
            )
            means.append(mean)
            variances.append(variance)
        self.running_mean.lerp_(torch.stack(means).mean(0), self.momentum)
        self.running_var.lerp_(torch.stack(variances).mean(0), self.momentum)
        self.num_batches_tracked += 1
        return torch.cat(groups)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, group_size={self.group_size}"


@torch.no_grad()
def average_running_statistics(model: nn.Module) -> None:
    """Make the running statistics those of all ranks' groups.

    Ranks start equal and take equal momentum steps, so the mean of their running statistics is the running
    mean over all groups: averaging when the statistics are read is exact, and costs no step anything.
    """
    if comm.get_world_size() == 1:
        return
    for module in model.modules():
        if isinstance(module, GroupedBatchNorm2d):
            for buffer in (module.running_mean, module.running_var):
                torch.distributed.all_reduce(buffer)
                buffer /= comm.get_world_size()


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


def shuffle(images: Tensor, permutation: Tensor) -> Tensor:
    """Deal the global batch out anew: this rank's images -> its block of the permuted global batch.

    Args:
        images: (n, ...) this rank's block.
        permutation: (N,) of the global batch, the same on all ranks.
    """
    return gather(images)[local_block(permutation)]


def unshuffle(embeddings: Tensor, permutation: Tensor) -> Tensor:
    """Undo :func:`shuffle`: this rank's (n, C) -> the whole global batch (N, C) in its own order."""
    return gather(embeddings)[permutation.argsort()]
