"""The same photograph in two sets, also when it was encoded, resized or recolored a little in between.

Of each image two small gray pictures are kept. The signs of the differences between neighbors in one of 9 x 9 are
a fingerprint of 144 bits (Krawetz 2013, "Kind of Like That": the difference hash, here in both directions); images
whose fingerprints differ in few bits are compared by the other, of 16 x 16.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from moco_det.data.images import open_image, to_rgb, upright_image
from moco_det.utils.machine import num_cores

# Bits of 144 in which the fingerprints of one photograph may differ, and the least correlation of its pictures of
# 16 x 16.
MAX_BITS = 24
MIN_CORRELATION = 0.97
_HASHED, _COMPARED = 9, 16


class Fingerprint(NamedTuple):
    """What is kept of an image: 144 bits in 18 bytes, and its small gray picture in a row (uint8)."""

    bits: np.ndarray
    gray: np.ndarray


def fingerprint(path: str) -> Fingerprint | None:
    """The fingerprint of an image; None for one that cannot be read, or is of one color."""
    try:
        with open_image(path) as image:
            image.draft(None, (64, 64))  # a JPEG in a fraction of the time
            image.load()
            gray = to_rgb(upright_image(image)).convert("L")
    except Exception:  # decoders raise a dozen types; unreadable images are listed elsewhere
        return None
    small = np.asarray(gray.resize((_HASHED, _HASHED), Image.Resampling.BOX), dtype=np.int16)
    signs = np.concatenate([(np.diff(small, axis=axis) > 0).ravel() for axis in (0, 1)])
    compared = np.asarray(gray.resize((_COMPARED, _COMPARED), Image.Resampling.BOX)).ravel()
    return Fingerprint(np.packbits(signs), compared) if compared.std() > 1 else None


def find_pairs(ones: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """The images that both lists show, as pairs of paths.

    Args:
        ones, others: paths as of :func:`moco_det.data.images.find_images`.
    """
    kept_ones, kept_others = _fingerprints(ones), _fingerprints(others)
    if not kept_ones or not kept_others:
        return []
    bits = np.stack([mark.bits for _, mark in kept_others])
    gray = np.stack([mark.gray for _, mark in kept_others])
    pairs = []
    for path, mark in kept_ones:
        near = np.flatnonzero(_distances(mark.bits, bits) <= MAX_BITS)
        same = near[_standard(gray[near]) @ _standard(mark.gray) >= MIN_CORRELATION]
        pairs += [(path, kept_others[number][0]) for number in same]
    return pairs


def _standard(pictures: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1: their products are correlations."""
    centered = pictures - pictures.mean(axis=-1, keepdims=True, dtype=np.float32)
    return centered / np.linalg.norm(centered, axis=-1, keepdims=True)


def _distances(bits: np.ndarray, others: np.ndarray) -> np.ndarray:
    """In how many bits a fingerprint differs from each of the others."""
    return _ONES[others ^ bits].sum(axis=1)


_ONES = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)


def _fingerprints(paths: Sequence[str]) -> list[tuple[str, Fingerprint]]:
    return [(path, mark) for path, mark in zip(paths, _map(paths), strict=True) if mark is not None]


def _map(paths: Sequence[str]) -> Iterator[Fingerprint | None]:
    if len(paths) < 2000 or num_cores() == 1:  # starting processes takes longer
        yield from map(fingerprint, paths)
        return
    with ProcessPoolExecutor(num_cores()) as pool:
        yield from pool.map(fingerprint, paths, chunksize=100)
