"""Finds images, and decodes one file to RGB. What is done with them is in views.py."""

import contextlib
import difflib
import functools
import hashlib
import io
import itertools
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor
from torchvision.io import decode_jpeg

from moco_det.data import shards
from moco_det.utils.files import datasets_root

# Files that a folder is searched for (any case). What a file really holds is decided by its content.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
# Searched for where there are none of those, since they may hold other things than images.
ARRAY_EXTENSIONS = (".npy", ".npz", ".dcm")
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


# ---- where images come from --------------------------------------------------------------------------


WHAT_TO_GIVE = (
    "give a folder of images or of .tar shards, a pattern such as train-{000000..000147}.tar, or a text file with "
    "one path a line"
)


def find_images(where: str) -> list[str]:
    """The images of a folder, of tar shards, or of a text file with one path a line.

    A folder is searched in all its sub-folders, links to folders included; names that begin with a dot are
    passed over. The order is that of the paths, the same on every file system. A folder that holds shards
    (``*.tar``) gives the images in these, shard by shard and each in its own order; so does one shard, or a
    pattern such as ``train-{000000..000147}.tar``. In a list file, paths (of images or of shards) are relative to
    the list's own folder, and blank lines and lines that begin with ``#`` are skipped; the order is the list's.

    Returns:
        paths, each of which :func:`decode_rgb` reads; that of an image in a shard is a
        :class:`moco_det.data.shards.Place`.

    Raises:
        ValueError: nothing is there, no image is found, none of a list's files exists, a shard is missing, or a
            folder holds both images and shards.
    """
    if os.path.isdir(where):
        return _in_folder(where)
    if shards.is_shard(where):
        return shards.find_members(shards.shards_of(where), EXTENSIONS)
    if os.path.isfile(where):
        return _read_list(where)
    raise ValueError(f"{where!r} does not exist (looked in {os.getcwd()!r}): {WHAT_TO_GIVE}")


def entry_of(name: str) -> str:
    """The path of an image by its name: ``shard.tar/member`` is looked up in the shard."""
    for parent in Path(name).parents:
        if parent.suffix.lower() == shards.EXTENSION and parent.is_file():
            with contextlib.suppress(ValueError):  # there is no image in it
                return _entries(str(parent)).get(name, name)
    return name


@functools.lru_cache
def _entries(shard: str) -> dict[str, str]:
    return {place: place for place in shards.find_members([shard], EXTENSIONS)}


def file_of(path: str) -> str:
    """The file that holds an image: itself, or its shard."""
    return path.shard if isinstance(path, shards.Place) else path


def _in_folder(folder: str) -> list[str]:
    found = sorted(_walk(folder))
    arrays = [path for path in found if path.lower().endswith(ARRAY_EXTENSIONS)]
    paths = [path for path in found if path.lower().endswith(EXTENSIONS)] or arrays
    archives = [path for path in found if not path.lower().endswith((*EXTENSIONS, *ARRAY_EXTENSIONS))]
    if paths and archives:
        raise ValueError(
            f"folder {folder!r} holds {len(paths)} images and {len(archives)} archives, e.g. {paths[0]!r} and "
            f"{archives[0]!r}: which are meant? Move the others away, or give a text file with one path a line"
        )
    plain = [path for path in archives if shards.is_shard(path)]  # compressed ones are refused here
    if plain:
        return shards.find_members(plain, EXTENSIONS)
    if not paths:
        looked_for = ", ".join((*EXTENSIONS, *ARRAY_EXTENSIONS, shards.EXTENSION))
        raise ValueError(f"no image in folder {folder!r} or below it; looked for {looked_for}")
    return paths


def _walk(folder: str):
    """Images, arrays and archives below a folder."""
    wanted = (*EXTENSIONS, *ARRAY_EXTENSIONS, shards.EXTENSION, *shards.COMPRESSED)
    seen = set()  # a link back to a folder above would otherwise be followed for ever
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if name[0] != ".")
        if real not in seen:
            seen.add(real)
            names = (name for name in files if name[0] != "." and name.lower().endswith(wanted))
            yield from (os.path.join(parent, name) for name in names)


def _read_list(list_file: str) -> list[str]:
    try:
        with open(list_file, encoding="utf-8-sig") as lines:
            entries = [line.strip() for line in lines]
    except UnicodeDecodeError as error:
        raise ValueError(f"{list_file!r} is not a text file: {WHAT_TO_GIVE}") from error
    folder = os.path.dirname(list_file)
    listed = [os.path.join(folder, entry) for entry in entries if entry and not entry.startswith("#")]
    if not listed:
        raise ValueError(f"list {list_file!r} names no image: expected one path a line")
    # Single missing files are replaced and counted while training; a list of nothing else is a mistake.
    if not any(os.path.exists(path) or shards.is_shard(path) for path in listed):
        raise ValueError(
            f"none of the {len(listed)} files in list {list_file!r} exists, e.g. {listed[0]!r}: "
            f"paths are relative to the list's folder ({os.path.abspath(folder)!r})"
        )
    paths = []
    for of_shards, group in itertools.groupby(listed, key=shards.is_shard):
        if of_shards:
            archives = [shard for pattern in group for shard in shards.shards_of(pattern)]
            group = shards.find_members(archives, EXTENSIONS)
        paths.extend(group)
    return paths


def without(paths: Sequence[str], list_file: str) -> list[str]:
    """The paths that are not in a list of images; members of shards stand in it as ``shard.tar/member``.

    Raises:
        ValueError: the list is not there, or names none of the images (it is of other paths).
    """
    if not os.path.isfile(list_file):
        raise ValueError(f"--exclude {list_file!r} does not exist (looked in {os.getcwd()!r})")
    folder = os.path.dirname(list_file)
    with open(list_file, encoding="utf-8-sig", errors="surrogateescape") as lines:
        entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    listed = {os.path.realpath(os.path.join(folder, entry)) for entry in entries}
    kept = [path for path in paths if os.path.realpath(path) not in listed]
    if entries and len(kept) == len(paths):
        raise ValueError(
            f"--exclude {list_file!r} names {len(entries)} images, e.g. {entries[0]!r}, none of which is among "
            f"the {len(paths)} images, e.g. {paths[0]!r}; expected paths of these, relative to the list's "
            "folder or absolute"
        )
    return kept


def names_digest(paths: Sequence[str], folder: str) -> str:
    """Which images, in which order: their number, and a digest of their names below ``folder``."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.removeprefix(folder)}\0".encode(errors="surrogateescape"))
    return f"{len(paths)} (names {digest.hexdigest()[:12]})"


def registered_images(names: Sequence[str]) -> list[str]:
    """File names of data sets registered in detectron2 (``DATASETS.TRAIN``), in order, each once; no labels.

    Raises:
        ValueError: a name is not registered (the closest matches are named), or its files are missing.
    """
    paths: dict[str, None] = {}
    for name in names:
        if name not in DatasetCatalog:
            near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0)
            raise ValueError(f"DATASETS.TRAIN: no data set {name!r} is registered; closest matches: {near}")
        try:
            files = [record["file_name"] for record in DatasetCatalog.get(name)]
        # Readers of data sets assert, or open files that are not there.
        except (OSError, ValueError, AssertionError) as error:
            raise ValueError(_missing(name, str(error))) from error
        if not any(os.path.exists(file_of(path)) for path in files):
            looked_for = f"none of its {len(files)} images exists" + "".join(
                f", e.g. {f!r}" for f in files[:1]
            )
            raise ValueError(_missing(name, looked_for))
        paths.update(dict.fromkeys(files))
    return list(paths)


def _missing(name: str, found: str) -> str:
    return (
        f"DATASETS.TRAIN: the files of data set {name!r} are missing ({found}). Data sets are looked for "
        f"under {os.path.abspath(datasets_root())!r}; set DETECTRON2_DATASETS (environment) to their folder"
    )


def register_imagenet() -> None:
    """Register ``imagenet_train`` ($DETECTRON2_DATASETS/imagenet/train, all images below it), once."""
    if "imagenet_train" not in DatasetCatalog:
        DatasetCatalog.register("imagenet_train", _imagenet_train)


def _imagenet_train() -> list[dict]:
    return [{"file_name": path} for path in find_images(os.path.join(datasets_root(), "imagenet", "train"))]


# ---- how one file becomes RGB ------------------------------------------------------------------------


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
