"""A labeled set of images: one folder per class."""

import contextlib
import copy
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from moco_det.data.decoding import UnreadableImage, decode_rgb
from moco_det.data.image_files import find_images
from moco_det.data.image_format import RGB, ImageFormat, check_images
from moco_det.data.shards import EXTENSION
from moco_det.data.views import center_view, whole_view
from moco_det.utils.seeding import numpy_generator


class LabeledFolder(torch.utils.data.Dataset):
    """``root/<class>/*``: a fixed view of each image and its class number, classes in alphabetic order.

    Where ``root`` holds tar shards, their members' names begin with the class: ``<class>/*``.

    Attributes:
        classes: their names; ``paths`` and ``labels``: of each image, class by class.
    """

    def __init__(
        self, root: str, size: int, key: str, center_crop: bool = True, image_format: ImageFormat = RGB
    ):
        """
        Args:
            size: side of the view, in pixels.
            key: what named the folder, for messages, e.g. ``"TEST.KNN.IMAGES"``.
            center_crop: the view is the image's center; else the whole image.
            image_format: how files become pixels.

        Raises:
            ValueError: the folder is missing or has no class folders, or one of these has no images, or
                images that ``image_format`` does not fit.
        """
        if not os.path.isdir(root):
            raise ValueError(
                f"{key}: the folder {root!r} does not exist; expected train/ and val/ (or test/) with one folder "
                "per class"
            )
        by_class = _of_shards(root, key) if _holds_shards(root) else _of_folders(root, key)
        self.classes = sorted(by_class)
        found = [(path, label) for label, name in enumerate(self.classes) for path in by_class[name]]
        self.paths, self.labels = zip(*found, strict=True)
        self.root, self.size, self.key = root, size, key
        self.view = center_view if center_crop else whole_view
        self.image_format = image_format
        check_images(self.paths, image_format)

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, indices: Sequence[int]) -> "LabeledFolder":
        """The same set with these images alone; the classes stay, with their numbers."""
        part = copy.copy(self)
        part.paths = tuple(self.paths[index] for index in indices)
        part.labels = tuple(self.labels[index] for index in indices)
        return part

    def decode(self, index: int):
        """The image as it is: RGB as Pillow's image where Pillow reads it, others as uint8 (C, H, W).

        Raises:
            ValueError: it cannot be read; a labeled set has none to spare.
        """
        if self.image_format.is_plain:
            with contextlib.suppress(UnreadableImage):
                return decode_rgb(self.paths[index])
        try:
            return self.image_format.decode(self.paths[index])
        except UnreadableImage as error:
            raise ValueError(f"{self.key}: {error}; fix or remove the image") from error

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image's view, uint8 (C, size, size), and its class; raises as :meth:`decode`."""
        return self.view(self.decode(index), self.size), self.labels[index]


def open_labeled_set(
    root: str,
    size: int,
    key: str,
    center_crop: bool = True,
    held_out: float = 0.0,
    image_format: ImageFormat = RGB,
) -> tuple[LabeledFolder, LabeledFolder]:
    """Open both parts of a labeled set: ``root/train``, and to measure on ``root/val`` or else ``root/test``.

    Args:
        size, key, center_crop, image_format: as of :class:`LabeledFolder`.
        held_out: where above 0, this fraction of the training images of each class is measured instead, and
            ``val`` is not looked at (``TEST.HELD_OUT``).

    Raises:
        ValueError: a part is missing or empty, or their classes differ.
    """
    if held_out:
        return hold_out(
            LabeledFolder(os.path.join(root, "train"), size, key, center_crop, image_format), held_out
        )
    measured = next((name for name in ("val", "test") if os.path.isdir(os.path.join(root, name))), None)
    if measured is None:
        found = "has neither val/ nor test/" if os.path.isdir(root) else "does not exist"
        raise ValueError(
            f"{key}: {root!r} {found} (looked in {os.getcwd()!r}); expected train/<class>/ and val/<class>/ "
            "(or test/<class>/) with images"
        )
    train, test = (
        LabeledFolder(os.path.join(root, name), size, key, center_crop, image_format)
        for name in ("train", measured)
    )
    check_same_classes(train, test)
    return train, test


def hold_out(folder: LabeledFolder, fraction: float) -> tuple[LabeledFolder, LabeledFolder]:
    """Split off a random fraction of each class, always the same images: what is left, and what is held out.

    Raises:
        ValueError: a class has too few images for both parts.
    """
    kept, held = [], []
    for number, name in enumerate(folder.classes):
        own = [index for index, label in enumerate(folder.labels) if label == number]
        count = round(fraction * len(own))
        if not 0 < count < len(own):
            raise ValueError(
                f"TEST.HELD_OUT is {fraction}, but class {name!r} of {folder.root!r} has {len(own)} images: "
                f"{count} would be held out and {len(own) - count} left; give another fraction or more images"
            )
        order = numpy_generator(0, "held out", number).permutation(own).tolist()
        held += sorted(order[:count])
        kept += sorted(order[count:])
    return folder.part(kept), folder.part(held)


def _of_folders(root: str, key: str) -> dict[str, list[str]]:
    folders = (entry.name for entry in os.scandir(root) if entry.is_dir())
    classes = [name for name in folders if not name.startswith(".")]
    if not classes:
        raise ValueError(f"{key}: {root!r} holds no class folders; expected {root}/<class>/*.jpg")
    return {name: find_images(os.path.join(root, name)) for name in classes}


def _holds_shards(root: str) -> bool:
    return any(name.lower().endswith(EXTENSION) for name in os.listdir(root))


def _of_shards(root: str, key: str) -> dict[str, list[str]]:
    by_class: dict[str, list[str]] = {}
    for place in find_images(root):
        name, slash, _ = place.name.partition("/")
        if place.error or not slash:
            why = place.error or "no class folder in its name; expected <class>/<name>.jpg in the shards"
            raise ValueError(f"{key}: {place}: {why}")
        by_class.setdefault(name, []).append(place)
    return by_class


def check_same_classes(train: LabeledFolder, test: LabeledFolder) -> None:
    """Refuse two parts of a set whose class folders differ.

    Raises:
        ValueError: names what only one of them has.
    """
    if train.classes != test.classes:
        differ = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(
            f"{train.key}: {train.root!r} has the classes {_few(train.classes)}, {test.root!r} "
            f"{_few(test.classes)}; expected the same, but only one has {_few(differ)}"
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
