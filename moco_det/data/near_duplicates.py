"""The same photograph in two sets, also when it was encoded, resized, recolored or cropped a little in between.

Of each image a perceptual hash is kept, the signs of the lowest 16 x 16 frequencies of a gray picture of 64 x 64
about their median (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"; ImageHash's
``phash(image, hash_size=16)``), and a gray picture of 16 x 16. Two images are the same photograph where the hashes
differ in few bits and the pictures agree: frequencies tell plain textures apart, which in a small picture all look
alike, and the picture tells apart objects of one shape on grounds of their own.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from moco_det.data.decoding import open_image, to_rgb, upright_image
from moco_det.utils.children import map_in_processes
from moco_det.utils.machine import num_cores
from moco_det.utils.progress import progress

# Bits of 256 in which the hashes of one photograph may differ (those of two photographs differ in about 128), and
# the least correlation of its pictures of 16 x 16.
MAX_BITS = 56
MIN_CORRELATION = 0.82
_TRANSFORMED, _HASHED, _COMPARED = 64, 16, 16
# Rows of the discrete cosine transform (type 2), without its scale.
_LOW_WAVES = np.cos(np.pi / _TRANSFORMED * np.outer(np.arange(_HASHED), np.arange(_TRANSFORMED) + 0.5))


class Fingerprint(NamedTuple):
    """What is kept of an image: 256 bits in 32 bytes, and its small gray picture in a row (uint8)."""

    bits: np.ndarray
    gray: np.ndarray


def fingerprint(path: str) -> Fingerprint | None:
    """The fingerprint of an image; None for one that cannot be read, or is of one color."""
    try:
        with open_image(path) as image:
            image.draft(None, (2 * _TRANSFORMED, 2 * _TRANSFORMED))  # a JPEG in a fraction of the time
            image.load()
            gray = to_rgb(upright_image(image)).convert("L")
    except Exception:  # decoders raise a dozen types; unreadable images are listed elsewhere
        return None
    pixels = np.asarray(gray.resize((_TRANSFORMED, _TRANSFORMED), Image.Resampling.LANCZOS), np.float64)
    low = _LOW_WAVES @ pixels @ _LOW_WAVES.T
    compared = np.asarray(gray.resize((_COMPARED, _COMPARED), Image.Resampling.BOX)).ravel()
    return Fingerprint(np.packbits(low > np.median(low)), compared) if compared.std() > 1 else None


def find_pairs(ones: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """The images that both lists show, as pairs of paths.

    Args:
        ones, others: paths as of :func:`moco_det.data.image_files.find_images`.
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
    """The number of bits in which a fingerprint differs from each of the others."""
    return _ONES[others ^ bits].sum(axis=1)


_ONES = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)


def _fingerprints(paths: Sequence[str]) -> list[tuple[str, Fingerprint]]:
    marks = progress(_map(paths), "looking for the same photographs", len(paths))
    return [(path, mark) for path, mark in zip(paths, marks, strict=True) if mark is not None]


def _map(paths: Sequence[str]) -> Iterator[Fingerprint | None]:
    if len(paths) < 2000 or num_cores() == 1:  # starting processes takes longer
        yield from map(fingerprint, paths)
        return
    with map_in_processes(num_cores(), chunksize=100) as mapped:
        yield from mapped(fingerprint, paths)
