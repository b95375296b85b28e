"""Where the negatives come from: the queue of past keys (MoCo v1, section 3.2).

C: embedding length, K: keys in the queue, N: keys of one global batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.seeding import torch_generator


class Queue(nn.Module):
    """A first-in-first-out queue of unit-length keys, saved with the model.

    It starts with random unit vectors, as the official code does; they are drawn from the run's seed, so the
    queue is equal on all ranks from the first step.
    """

    def __init__(self, dim: int, size: int, seed: int):
        super().__init__()
        random_keys = torch.randn(dim, size, generator=torch_generator(seed, "queue"))
        self.register_buffer("keys", F.normalize(random_keys, dim=0))  # CxK
        # Tensors and not numbers, so that they are saved and no step waits for the GPU to read them.
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))  # where the next key goes
        self.register_buffer("num_real", torch.zeros((), dtype=torch.long))  # keys that came from images

    @property
    def size(self) -> int:
        return self.keys.shape[1]

    @property
    def share_real(self) -> Tensor:
        """The share of the queue that holds keys of images and not its random start, 0 to 1 (a scalar)."""
        return self.num_real / self.size

    def negatives(self) -> Tensor:
        """The keys to compare with, CxK: a copy, because the backward pass needs them after the update."""
        return self.keys.clone()

    @torch.no_grad()
    def update(self, keys: Tensor) -> None:
        """Replace the oldest N keys by those of the whole global batch.

        Args:
            keys: (N, C), the same on all ranks and in the order of the batch; N <= K, any N: the queue wraps.
        """
        count = keys.shape[0]
        assert count <= self.size, f"{count} keys do not fit a queue of {self.size}"
        slots = (self.pointer + torch.arange(count, device=keys.device)) % self.size
        self.keys.index_copy_(1, slots, keys.T.to(self.keys.dtype))
        self.pointer.copy_((self.pointer + count) % self.size)
        self.num_real.copy_((self.num_real + count).clamp(max=self.size))
