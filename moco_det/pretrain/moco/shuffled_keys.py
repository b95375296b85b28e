"""Keys with shuffling BN, as MoCo and the methods with its queue make them (MoCo v1, section 3.3).

n: images on this rank, N: images in the global batch, S: side of a view.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from moco_det.modeling.collectives import draw_permutation, shuffle, unshuffle
from moco_det.pretrain.method import PretrainMethod
from moco_det.pretrain.moco.plan import DICTIONARY_RULES


class ShuffledKeys(PretrainMethod):
    """A method whose ranks make the keys of each other's images, in a random order that each step draws anew."""

    def __init__(self, *, shuffle_bn: bool, seed: int = 0, **common):
        """
        Args:
            shuffle_bn: shuffle the keys' images over the global batch before the key encoder's batch norm.
            seed: the run's seed, from which the shuffles are drawn.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.shuffle_bn, self.seed = shuffle_bn, seed

    @classmethod
    def plan_rules(cls, cfg) -> Sequence[Callable]:
        return DICTIONARY_RULES[cfg.MODEL.MOCO.DICTIONARY]

    def shuffled(self, images: Tensor, iteration: int, purpose: str = "shuffle") -> tuple[Tensor, Tensor]:
        """The images whose keys this rank makes, uint8 (n, 3, S, S), and the permutation (N,).

        Args:
            images: of this rank, uint8 (n, 3, S, S).
            purpose: of the drawing; several shuffles of a step have one each.
        """
        images = images.to(self.pixel_mean.device, non_blocking=True)
        permutation = draw_permutation(len(images), self.shuffle_bn, self.seed, purpose, iteration)
        return shuffle(images, permutation), permutation

    def embed_shuffled(
        self,
        embed: Callable[[Tensor], Sequence[Tensor]],
        images: Tensor,
        iteration: int,
        purpose: str = "shuffle",
    ) -> list[Tensor]:
        """What ``embed`` makes of the whole global batch, each (N, ...), from this rank's part of it.

        Args:
            embed: from the images of a micro-batch to tensors with a row for each of them.
            images, iteration, purpose: of :meth:`shuffled`.
        """
        images, permutation = self.shuffled(images, iteration, purpose)
        parts = [embed(part) for part in images.chunk(self.accumulate)]
        return [unshuffle(torch.cat(tensors), permutation) for tensors in zip(*parts, strict=True)]
