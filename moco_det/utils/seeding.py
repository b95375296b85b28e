"""Randomness as a function: every random number comes from a generator keyed by what it is for.

Nothing here keeps state, so workers, ranks, restarts and their number change none
(docs/REPRODUCIBILITY.md).
"""

import hashlib

import numpy as np
import torch


def keyed_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed that depends on every argument and on nothing else.

    Args:
        seed: the run's seed (``cfg.SEED``).
        purpose: what is sampled, e.g. ``"view"`` or ``"shuffle"``; two purposes never share a stream.
        numbers: what the numbers belong to, e.g. epoch, image index, view.
    """
    key = repr((int(seed), purpose, *map(int, numbers))).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little") >> 1


def numpy_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A numpy generator keyed as :func:`keyed_seed`."""
    return np.random.Generator(np.random.PCG64(keyed_seed(seed, purpose, *numbers)))


def torch_generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """A torch generator on the CPU keyed as :func:`keyed_seed` (the CPU's stream is the same on every machine)."""
    return torch.Generator().manual_seed(keyed_seed(seed, purpose, *numbers))
