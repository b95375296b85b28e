"""INPUT.DECODE fast: a JPEG file decoded only as finely as its views need, by simplejpeg.

The inverse cosine transform of a block of 8 x 8 pixels can give 4 x 4, 2 x 2 or 1 pixel instead, from the low
frequencies of the block: what it leaves out is what an antialiased resize removes anyway. Besides, the library's
quicker transform and upsampling of the colors are taken. What is sampled for a view does not depend on it;
tests/data/test_fast_jpeg.py holds how near the views are to those of all pixels.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from torch import Tensor, from_numpy

from moco_det.data.decoding import jpeg_content
from moco_det.data.views import ViewParameters, ViewSettings

EXACT, FAST = "exact", "fast"
REDUCTIONS = (8, 4, 2)  # pixels of a file's row that become one, where the views allow it

Draw = Callable[[int, int], list[ViewParameters]]


def check_decoder(decode: str) -> None:
    """Look for what a value of INPUT.DECODE needs.

    Raises:
        ValueError: the library is not installed; with the fix.
    """
    if decode == FAST:
        try:
            import simplejpeg  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f"INPUT.DECODE is {FAST!r}, but the package simplejpeg is not installed; install it: pip install "
                f"simplejpeg (or moco_det[fast-decode]), or give {EXACT!r}"
            ) from error


def decode_for_views(path: str, settings: ViewSettings, draw: Draw) -> tuple[Tensor, list[ViewParameters]]:
    """An image's pixels and the views that are sampled from it, whose crops count in these pixels.

    Args:
        draw: samples the views of an image by its width and height. It may be called twice.

    Returns:
        uint8 (channels, H, W), the file's size or a half, a fourth or an eighth of it, rounded up; and the views.

    Raises:
        UnreadableImage: as :meth:`moco_det.data.image_format.ImageFormat.decode`.
    """
    if settings.decode == FAST and settings.image_format.is_plain:
        # Not such a file, or a broken one: the other way says what is wrong.
        with contextlib.suppress(ValueError):
            return _decode_reduced(path, draw)
    pixels = settings.image_format.decode(path)
    return pixels, draw(pixels.shape[2], pixels.shape[1])


def _decode_reduced(path: str, draw: Draw) -> tuple[Tensor, list[ViewParameters]]:
    import simplejpeg  # here, since INPUT.DECODE exact does not need it

    content, width, height = jpeg_content(path)
    views = draw(width, height)
    by = reduction(views)
    pixels = simplejpeg.decode_jpeg(
        content, fastdct=True, fastupsample=True, min_height=-(-height // by), min_width=-(-width // by)
    )
    return from_numpy(pixels).permute(2, 0, 1), [reduced_view(view, by) for view in views]


def reduction(views: Sequence[ViewParameters]) -> int:
    """By how much an image may be reduced so that no crop has fewer pixels than its view, along either side."""
    for by in REDUCTIONS:
        if all(min(view.crop[2:]) >= by * view.size for view in views):
            return by
    return 1


def reduced_view(view: ViewParameters, by: int) -> ViewParameters:
    """The view with its crop in a reduced image: the edges move by half a pixel there at most."""
    top, left, height, width = view.crop
    # Halves upwards, not to even as round() does: else a crop could lose a pixel that its view needs.
    edges = [(edge + by // 2) // by for edge in (top, left, top + height, left + width)]
    return dataclasses.replace(view, crop=(*edges[:2], edges[2] - edges[0], edges[3] - edges[1]))
