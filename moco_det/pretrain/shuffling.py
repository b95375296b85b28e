"""The shuffle of the keys ("shuffling BN", MoCo v1, section 3.3) as a function of the seed and the step.

n: images on this rank, N: images in the global batch, S: side of a view.
"""

import torch
from detectron2.utils import comm
from torch import Tensor

from moco_det.grouped_batch_norm import shuffle
from moco_det.seeding import torch_generator


def deal_keys(
    images: Tensor, shuffled: bool, seed: int, purpose: str, iteration: int
) -> tuple[Tensor, Tensor]:
    """Deal the images of the global batch out anew, for the batch norm of the encoder of the keys.

    Args:
        images: (n, 3, S, S) of this rank.
        shuffled: False: they stay where they are.
        seed, purpose, iteration: what the permutation is drawn from; two purposes never share one.

    Returns:
        (n, 3, S, S), the images whose keys this rank makes, and the permutation (N,), for ``unshuffle``.
    """
    count = len(images) * comm.get_world_size()
    permutation = torch.arange(count)
    if shuffled:
        permutation = torch.randperm(count, generator=torch_generator(seed, purpose, iteration))
    return shuffle(images, permutation), permutation.to(images.device)
