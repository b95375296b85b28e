"""Reads the values that an image file holds, before they become pixels.

A file's content decides how it is read, not its name: TIFF by tifffile with imagecodecs, DICOM by pydicom, both of
which only users of such files need, ``.npy`` and ``.npz`` by numpy, all else by Pillow.
"""

import io
import math
import os
import zipfile

import numpy as np
from PIL import Image

from moco_det.data import shards
from moco_det.data.decoding import open_image, orientation

# Pillow's limit against decompression bombs, for the files that it does not read.
MAX_VALUES = 2 * Image.MAX_IMAGE_PIXELS * 4


def read_values(path: str) -> tuple[np.ndarray, int]:
    """What a file holds, as it is: (H, W), (H, W, C) or (C, H, W), and its EXIF orientation, 1 to 8.

    Raises:
        ValueError: as OSError and what else decoders raise, for a file that they cannot read.
    """
    file = _opened(path)
    with file:
        start = file.read(132)
        file.seek(0)
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _read_tiff(file)
        if start[:6] == b"\x93NUMPY":
            return _checked(np.load(file, allow_pickle=False)), 1
        if start[:4] == b"PK\x03\x04":
            return _read_npz(file), 1
        if start[128:] == b"DICM":
            return _read_dicom(file), 1
    return _read_by_pillow(path)


def _opened(path: str) -> io.BufferedIOBase:
    if isinstance(path, shards.Place):
        return io.BytesIO(shards.read(path))
    if not os.path.isfile(path) and os.path.exists(path):
        raise ValueError("a folder, pipe or device; expected a file")
    return open(path, "rb")


def _checked(values: np.ndarray) -> np.ndarray:
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if values.dtype.kind not in "uif":
        raise ValueError(f"values of type {values.dtype}; expected numbers")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _read_tiff(file) -> tuple[np.ndarray, int]:
    try:
        import tifffile  # here, since only users of such files need the package
    except ImportError as error:
        raise ValueError(
            "a TIFF of other than 8-bit gray or RGB needs tifffile and imagecodecs; pip install 'moco_det[bands]'"
        ) from error
    with tifffile.TiffFile(file) as tiff:
        series, page = tiff.series[0], tiff.pages.first
        _refuse_bomb(math.prod(series.shape))
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise ValueError("its values are places in a palette of colors; save it as gray or RGB")
        values = _checked(series.asarray(maxworkers=1))
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and values.dtype.kind == "u":
            values = np.iinfo(values.dtype).max - values
        turned = page.tags.get("Orientation")
        return values, int(turned.value) if turned else 1


def _read_npz(file) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        names = [info.filename for info in archive.infolist()]
        if len(names) != 1:
            raise ValueError(f"holds the arrays {names[:5]}; expected one, the image")
        _refuse_bomb(archive.infolist()[0].file_size // 8)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return _checked(arrays[arrays.files[0]])


def _read_dicom(file) -> np.ndarray:
    try:
        import pydicom  # here, as tifffile
        from pydicom.pixels import apply_rescale
    except ImportError as error:
        raise ValueError("a DICOM file needs pydicom; pip install 'moco_det[dicom]'") from error
    image = pydicom.dcmread(file)
    _refuse_bomb(image.Rows * image.Columns * int(image.get("NumberOfFrames", 1) or 1))
    values = image.pixel_array
    if int(image.get("NumberOfFrames", 1) or 1) > 1:
        values = values[0]
    if image.PhotometricInterpretation == "MONOCHROME1":  # 0 is white
        values = ((1 << image.BitsStored) - 1 - values).astype(values.dtype)
    return _checked(np.asarray(apply_rescale(values, image)))


def _read_by_pillow(path: str) -> tuple[np.ndarray, int]:
    with open_image(path) as image:
        bits = bits_of(image)  # before what loads the image
        turned = orientation(image)
        if bits == 16 and len(image.getbands()) > 1:
            return _read_deep_png(path), turned
        image.load()
        if image.mode in ("1", "P", "PA"):
            image = image.convert(
                "L" if image.mode == "1" else "RGBA" if image.has_transparency_data else "RGB"
            )
        values = np.asarray(image)
    return values.astype(np.uint16) if image.mode.startswith("I") else _checked(values), turned


def _read_deep_png(path: str) -> np.ndarray:
    """Colors of 16 bits, of which Pillow gives 8."""
    try:
        import imagecodecs  # here, as tifffile
    except ImportError as error:
        raise ValueError("colors of 16 bits need imagecodecs; pip install 'moco_det[bands]'") from error
    with _opened(path) as file:
        return imagecodecs.png_decode(file.read())


def _refuse_bomb(values: int) -> None:
    if values > MAX_VALUES:
        raise ValueError(
            f"{values:,} values, more than the limit of {MAX_VALUES:,} against decompression bombs"
        )


def bits_of(image: Image.Image) -> int:
    """Bits of a channel in the file that Pillow opened: 16 where its own pixels may have fewer, else 8."""
    raw = str(image.tile[0][3]) if image.tile else ""
    return 16 if image.mode.startswith("I") or ";16" in raw else 8
