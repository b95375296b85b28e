"""Decodes one image file to 8-bit RGB, upright. Other channels and ranges are image_format.py's."""

import contextlib
import io
import os
import stat

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor
from torchvision.io import decode_jpeg

from moco_det.data import shards

# Pillow's names of the contents that are decoded. Never all of Pillow's: some run other programs (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
# Color behind transparent pixels: mid-gray, which after normalization is close to zero.
BACKGROUND = (128, 128, 128)
# What undoes an EXIF orientation (tag 0x0112); 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):
    """A file that cannot be decoded; ``reason`` is one line."""

    def __init__(self, path: str, reason: str = ""):
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self):
        # Without a reason it comes from a worker of a loader, which hands on the message alone.
        return f"cannot read image {self.path!r}: {self.reason}" if self.reason else self.path


class UnfitImage(UnreadableImage):
    """A file that can be read, but not with the channels or the range of values that the settings say."""


def decode_rgb(path: str, upright: bool = True) -> Image.Image:
    """Decode a file, or a place in a shard, to 8-bit RGB, upright (unless that is not wanted).

    The content decides the format, not the name. The first frame is taken. EXIF orientation is applied;
    transparent pixels are laid over ``BACKGROUND``; 16-bit and 32-bit integers are scaled from 0..65535 to
    0..255; color profiles are ignored, as in the official code.

    Raises:
        UnreadableImage: the file is missing, empty, truncated, not an image, of floating-point pixels
            (which have no stated range), or larger than Pillow's limit against decompression bombs.
        UnfitImage: it has channels that Pillow would leave out.
    """
    try:
        with open_image(path) as image:
            refuse_hidden_channels(image)
            image.load()
            return to_rgb(upright_image(image) if upright else image)
    except Exception as error:  # decoders raise a dozen types on broken files: struct.error, SyntaxError, …
        raise unreadable(path, error) from error


def decode_pixels(path: str) -> Tensor:
    """What :func:`decode_rgb` decodes, as uint8 (3, H, W), in less time. The channels lie together in memory.

    A JPEG file of three channels is decoded by torchvision, to the same pixels; whatever that cannot read, and all
    else, is Pillow's.

    Raises:
        UnreadableImage: as :func:`decode_rgb`.
    """
    try:
        with open_image(path) as image:
            if image.format == "JPEG" and image.mode == "RGB" and orientation(image) == 1:
                with contextlib.suppress(RuntimeError):
                    return _decode_jpeg(image.fp)
            refuse_hidden_channels(image)
            image.load()
            return to_pixels(to_rgb(upright_image(image)))
    except Exception as error:  # as in decode_rgb
        raise unreadable(path, error) from error


def jpeg_content(path: str) -> tuple[bytes, int, int]:
    """The bytes of an upright JPEG file of three channels, its width and its height; the pixels are not decoded.

    Raises:
        UnreadableImage: as :func:`decode_rgb`, or it is another file.
    """
    try:
        with open_image(path) as image:
            if image.format != "JPEG" or image.mode != "RGB" or orientation(image) != 1:
                raise ValueError("not an upright JPEG file of three channels")
            image.fp.seek(0)
            return image.fp.read(), *image.size
    except Exception as error:  # as in decode_rgb
        raise unreadable(path, error) from error


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, H, W), whose channels lie together in memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _decode_jpeg(file) -> Tensor:
    file.seek(0)
    pixels = decode_jpeg(torch.frombuffer(bytearray(file.read()), dtype=torch.uint8))
    file.seek(0)
    return pixels


def open_image(path: str) -> Image.Image:
    """The image as Pillow opens it, its header read and no more; raises what Pillow and the system raise."""
    if isinstance(path, shards.Place):
        content = shards.read(path)
        _refuse_empty(len(content))
        return Image.open(io.BytesIO(content), formats=FORMATS)
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode):
        _refuse_empty(status.st_size)
    elif not stat.S_ISDIR(status.st_mode):  # a folder gives an error of its own
        raise ValueError("a pipe or device, which could be waited for without end")
    return Image.open(path, formats=FORMATS)


def _refuse_empty(size: int) -> None:
    if size == 0:
        raise ValueError("empty file")


def refuse_hidden_channels(image: Image.Image) -> None:
    """Raises UnfitImage: a TIFF has channels that Pillow leaves out without a word."""
    samples = image.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) if image.format == "TIFF" else 1
    if samples > len(image.getbands()):
        raise UnfitImage(
            "",
            f"has {samples} channels, of which RGB would be {len(image.getbands())}; give INPUT.CHANNELS "
            f"{samples} (docs/OTHER_IMAGES.md), or save it as RGB",
        )


def unreadable(path: str, error: Exception) -> UnreadableImage:
    """What is raised where a file leads to an error."""
    if isinstance(error, UnreadableImage):
        return type(error)(path, error.reason)
    return UnreadableImage(path, _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)})"
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 is upright, or not said."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata around good pixels
        return 1


def upright_image(image: Image.Image, turned: int = 0) -> Image.Image:
    """The image turned as its EXIF orientation says; ``turned``: the orientation, where it is known."""
    # Not ImageOps.exif_transpose: it also rewrites the metadata, and fails where only these are broken.
    turned = turned or orientation(image)
    return image.transpose(_UPRIGHT[turned]) if turned in _UPRIGHT else image


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB, as :func:`decode_rgb` says; raises ValueError for floating-point pixels."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # I, I;16 and its byte orders; Pillow's own convert would clip at 255
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnfitImage(
            "", "floating-point pixels have no stated range; give INPUT.RANGE, or store it with 8 or 16 bits"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
