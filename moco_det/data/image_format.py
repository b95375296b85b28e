"""How any image file becomes pixels: 1 to 16 channels, of 8, 12 or 16 bits or floating point.

Pre-training, ``compute_stats``, classifiers and detectors read images through :class:`ImageFormat`. Whatever
a file holds, its pixels are 8-bit values: those of INPUT.RANGE, scaled to 0..255. So what follows (views,
mean and std, weights) is on one scale and costs the same for all. Plain RGB images (three channels, no range) are
decoded by :mod:`moco_det.data.decoding`; the values of other files are read by :mod:`moco_det.data.file_values`.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from moco_det.data.decoding import (
    UnfitImage,
    UnreadableImage,
    decode_pixels,
    decode_rgb,
    open_image,
    refuse_hidden_channels,
    to_pixels,
    unreadable,
    upright_image,
)
from moco_det.data.file_values import bits_of, read_values

MAX_CHANNELS = 16
# Images that are looked at before a run, and pixel values of 256 below which they are called nearly black.
LOOKED_AT, FEW_VALUES = 16, 64
HOW_TO_MEASURE = (
    "tools/compute_stats.py --channels {} --range measured writes INPUT.CHANNELS, INPUT.RANGE and the "
    "MODEL.PIXEL_MEAN and MODEL.PIXEL_STD that belong to them into an overlay"
)


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """How files become pixels: the keys INPUT.CHANNELS, INPUT.RANGE and INPUT.FORMAT.

    Attributes:
        channels: of the pixels, 1 to 16.
        range: the value that becomes 0 and that which becomes 255, for all channels or for each in
            turn; empty: those of the file's type, 0..255 or 0..65535.
        channel_order: ``"RGB"`` or ``"BGR"``: how the model wants the first three channels, which files have as
            red, green and blue; ``"L"`` (detectron2's and Pillow's word for gray): each channel is a gray image
            of its own.
    """

    channels: int = 3
    range: tuple[float, ...] = ()
    channel_order: str = "RGB"

    @classmethod
    def from_config(cls, cfg) -> "ImageFormat":
        """Make the format that a config describes.

        Raises:
            ValueError: keys that do not fit each other; with the values found, what was expected and the fix.
        """
        channels, limits, channel_order = (
            cfg.INPUT.CHANNELS,
            tuple(map(float, cfg.INPUT.RANGE)),
            cfg.INPUT.FORMAT,
        )
        for key, values in (
            ("MODEL.PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN),
            ("MODEL.PIXEL_STD", cfg.MODEL.PIXEL_STD),
        ):
            if len(values) != channels:
                raise ValueError(
                    f"INPUT.CHANNELS is {channels} and {key} has {len(values)} numbers, {list(values)}; "
                    f"expected one for each channel: {HOW_TO_MEASURE.format(channels)}"
                )
        return checked_format(channels, limits, channel_order)

    @property
    def is_plain(self) -> bool:
        """Whether the pixels are those that 8-bit RGB images have always given."""
        return self.channels == 3 and not self.range

    @property
    def has_colors(self) -> bool:
        """Whether the first three channels are red, green and blue."""
        return self.channel_order != "L"

    def decode(self, path: str, upright: bool = True) -> Tensor:
        """The pixels of a file or of a place in a shard, uint8 (channels, H, W), colors as red, green, blue.

        The first frame is taken. An orientation that the file states is applied unless ``upright`` is False.
        Values outside of the range become its ends, values that are no number its lower end. A gray file
        fills three channels; a file of three equal ones gives one.

        Raises:
            UnfitImage: the file has other channels, or values of no stated range.
            UnreadableImage: as :func:`moco_det.data.decoding.decode_rgb`, or a package is missing.
        """
        if self.is_plain:
            try:
                return decode_pixels(path) if upright else to_pixels(decode_rgb(path, upright=False))
            except UnreadableImage as error:
                if not isinstance(error.__cause__, UnidentifiedImageError):
                    raise
        pixels, turned = self.stored(path)
        if upright and turned != 1:
            pixels = np.stack([upright_image(Image.fromarray(channel), turned) for channel in pixels])
        return torch.from_numpy(np.require(pixels, requirements=("C", "W")))

    def stored(self, path: str) -> tuple[np.ndarray, int]:
        """The pixels as the file has them, and its orientation, 1 to 8; of plain RGB only what Pillow cannot read.

        Raises:
            UnfitImage, UnreadableImage: as :meth:`decode`.
        """
        try:
            values, turned = read_values(path)
            return self._to_8_bits(_channels_first(values, self.channels)), turned
        except Exception as error:  # as in decode_rgb
            raise unreadable(path, error) from error

    def values(self, path: str) -> np.ndarray:
        """What the file holds, (channels, H, W), before it is scaled; raises as :meth:`decode`."""
        try:
            return _channels_first(read_values(path)[0], self.channels)
        except Exception as error:  # as in decode_rgb
            raise unreadable(path, error) from error

    def _to_8_bits(self, values: np.ndarray) -> np.ndarray:
        """Values (C, H, W) as pixel values, uint8."""
        limits = self.range
        if not limits:
            if values.dtype == np.uint8:
                return values
            if values.dtype != np.uint16:
                raise UnfitImage(
                    "",
                    f"values of type {values.dtype} have no stated range; say with INPUT.RANGE which value "
                    f"becomes 0 and which 255: {HOW_TO_MEASURE.format(self.channels)}",
                )
            limits = (0.0, 65535.0)
        # In which whole numbers of 16 bits, times 255, are exact.
        kind = np.float64 if values.dtype.kind == "f" or values.dtype.itemsize > 2 else np.float32
        low, high = np.array(_pairs(limits), kind).T[..., None, None]
        scaled = (values.astype(kind) - low) * 255 / (high - low) + 0.5
        return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)


RGB = ImageFormat()


def checked_format(
    channels: int,
    limits: tuple[float, ...],
    channel_order: str,
    range_key: str = "INPUT.RANGE",
    channel_order_key: str = "INPUT.FORMAT",
) -> ImageFormat:
    """An image format whose parts fit each other.

    Raises:
        ValueError: they do not.
    """
    rising = len(limits) in (0, 2, 2 * channels) and all(low < high for low, high in _pairs(limits))
    if not rising or not all(map(math.isfinite, limits)):
        raise ValueError(
            f"{range_key} is {list(limits)} with {channels} channels; expected a lowest and a higher highest "
            "value for all channels, such as 0 and 4095, or two such numbers for each in turn; none: the full "
            "range of 8 or 16 bits"
        )
    if channels < 3 and channel_order != "L":
        raise ValueError(
            f"{channel_order_key} is {channel_order} with {channels} channel{'s' * (channels > 1)}; expected L: "
            "fewer than three have no order of colors"
        )
    return ImageFormat(channels, limits, channel_order)


def _pairs(limits: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(limits[::2], limits[1::2], strict=True))


def _channels_first(values: np.ndarray, channels: int) -> np.ndarray:
    """Values as (channels, H, W): the last dimension is that of the channels where it fits, else the first."""
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3:
        raise UnfitImage("", f"has the shape {values.shape}; expected height, width and channels")
    if values.shape[-1] == channels:
        return np.moveaxis(values, -1, 0)
    if values.shape[0] == channels:
        return values
    is_last = values.shape[-1] <= MAX_CHANNELS or values.shape[-1] < values.shape[0]
    first = np.moveaxis(values, -1, 0) if is_last else values
    found = first.shape[0]
    if channels == 3 and found == 1:
        return first.repeat(3, axis=0)
    if channels == 1 and found == 3 and (first == first[:1]).all():
        return first[:1]
    raise UnfitImage(
        "",
        f"has {found} channel{'s' * (found > 1)} of {values.dtype.itemsize * 8} bits where INPUT.CHANNELS "
        f"is {channels}; give INPUT.CHANNELS {found}, or other images: {HOW_TO_MEASURE.format(found)}",
    )


# ---- before a run ----------------------------------------------------------------------------------------


def check_images(paths: Sequence[str], image_format: ImageFormat) -> None:
    """Look at a few of a run's images, spread over all, before the run.

    Raises:
        ValueError: they have other channels than the settings say, values of no stated range, or 16 bits of
            which so few are used that the pixels are nearly black; with the fix.
    """
    looked_at, depths = {}, set()
    for path in paths[:: max(len(paths) // LOOKED_AT, 1)][:LOOKED_AT]:
        bits = _bits_by_pillow(path) if image_format.is_plain else None
        if bits != 8:
            try:
                looked_at[path] = image_format.decode(path)
                bits = bits or read_values(path)[0].dtype.itemsize * 8
            except UnfitImage as error:
                raise ValueError(str(error)) from error
            except UnreadableImage:
                continue  # the run counts it
        depths.add(bits)
    if not looked_at:
        return
    first, how = next(iter(looked_at)), HOW_TO_MEASURE.format(image_format.channels)
    darkest = min(int(pixels.min()) for pixels in looked_at.values())
    brightest = max(int(pixels.max()) for pixels in looked_at.values())
    if image_format.range and brightest == darkest:
        raise ValueError(
            f"INPUT.RANGE {image_format.range} makes all pixels of {first!r} and {len(looked_at) - 1} other "
            f"images {brightest} of 0..255; give the values that the images have. {how}"
        )
    if not image_format.range and 8 not in depths and brightest < FEW_VALUES:
        highest = (1 << ((brightest + 1) * 257 - 1).bit_length()) - 1
        raise ValueError(
            f"images such as {first!r} have 16 bits and are nearly black: 0..65535 becomes 0..255, the brightest "
            f"value of {len(looked_at)} images becomes {brightest}, so {brightest + 1} of 256 values are left. "
            f'Say which value is the highest, such as INPUT.RANGE "(0, {highest})"; "(0, 65535)" takes them as '
            f"they are. {how}"
        )


def _bits_by_pillow(path: str) -> int | None:
    """Bits of a channel of a file that Pillow reads as it is; None for other files."""
    try:
        with open_image(path) as image:
            refuse_hidden_channels(image)
            return bits_of(image)
    except Exception:  # whatever is wrong with it, decoding says it
        return None


def picture(pixels: Tensor, chosen: Sequence[int] = (0, 1, 2)) -> Image.Image:
    """Three channels of an image, uint8 (C, H, W), as a color picture; numbers wrap at C."""
    index = [channel % len(pixels) for channel in chosen]
    return Image.fromarray(pixels[index].permute(1, 2, 0).contiguous().cpu().numpy())
