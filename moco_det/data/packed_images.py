"""What a packed copy of images is made of: each image as a small JPEG, and its name in the shards."""

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from moco_det.data.decoding import UnreadableImage, decode_rgb, open_image, orientation
from moco_det.data.sample_order import PackedPaths
from moco_det.data.shards import Place
from moco_det.utils.children import ignore_stop_signals


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are packed.

    Attributes:
        shorter_side: of larger images, after the packing, in pixels; 0: all keep their size.
        quality: of the JPEGs, 1 to 100.
        shard_mib: a shard ends with the image with which it is at least as large, in MiB.
    """

    shorter_side: int = 256
    quality: int = 92
    shard_mib: int = 1024

    def check(self) -> None:
        """Raises ValueError: a value is out of range."""
        for flag, value, least, most in (
            ("--shorter-side", self.shorter_side, 0, 10_000),
            ("--quality", self.quality, 1, 100),
            ("--shard-mib", self.shard_mib, 1, 2**20),
        ):
            if not least <= value <= most:
                raise ValueError(f"{flag} is {value}; expected {least} to {most}")


# ---- one image ---------------------------------------------------------------------------------------


def packed_jpeg(path: str, settings: Settings) -> bytes:
    """An image as an upright RGB JPEG, not larger than asked; one that is so already, byte for byte.

    Raises:
        UnreadableImage: it cannot be decoded.
    """
    image = decode_rgb(path)
    factor = settings.shorter_side / min(image.size) if settings.shorter_side else 1
    if factor >= 1 and (content := _as_it_is(path)) is not None:
        return content
    if factor < 1:
        size = tuple(max(settings.shorter_side, round(side * factor)) for side in image.size)
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=settings.quality)
    return file.getvalue()


def _as_it_is(path: str) -> bytes | None:
    """The file's bytes, where they are an upright RGB JPEG."""
    with open_image(path) as image:
        if image.format != "JPEG" or image.mode != "RGB" or orientation(image) != 1:
            return None
        image.fp.seek(0)
        return image.fp.read()


class _Packed(Dataset):
    """Maps an index to the packed image, or to why it cannot be read."""

    def __init__(self, paths: Sequence[str], settings: Settings):
        self.paths, self.settings = PackedPaths(paths), settings

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> bytes | tuple[str, str]:
        try:
            return packed_jpeg(self.paths[index], self.settings)
        except UnreadableImage as error:
            return error.path, error.reason


def _same(item):
    return item


def pack_each(
    paths: Sequence[str], settings: Settings, num_workers: int
) -> Iterator[bytes | tuple[str, str]]:
    """Each packed image in the order of the paths, or (path, reason) of one that cannot be read."""
    return iter(
        DataLoader(
            _Packed(paths, settings),
            batch_size=None,
            collate_fn=_same,
            num_workers=num_workers,
            worker_init_fn=ignore_stop_signals,
        )
    )


def member_names(paths: Sequence[str], root: str) -> list[str]:
    """A name in the shards for each image: that below ``root``, ending in .jpg or .jpeg, each once.

    Of an image in a shard it is the member's own. No name leads out of a folder that the shards may be unpacked
    in, and none has a part that begins with a dot, which readers pass over.

    Args:
        root: folder; of an image outside, all of its path is taken.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        if isinstance(path, Place):
            name = path.name
        elif (name := os.path.relpath(path, root)).startswith("../"):
            name = os.path.abspath(path)
        parts = (part for part in name.split("/") if part not in ("", ".", ".."))
        stem, extension = os.path.splitext("/".join(f"_{p}" if p.startswith(".") else p for p in parts))
        extension = extension if extension.lower() in (".jpg", ".jpeg") else ".jpg"
        unique, number = f"{stem}{extension}", 1
        while unique in taken:
            number += 1
            unique = f"{stem}_{number}{extension}"
        taken.add(unique)
        names.append(unique)
    return names
