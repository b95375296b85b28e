"""Finds image files: in folders, in tar shards, in lists and in registered data sets."""

import contextlib
import difflib
import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog

from moco_det.data import shards
from moco_det.utils.files import datasets_root

# Files that a folder is searched for (any case). What a file really holds is decided by its content.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
# Searched for where there are none of those, since they may hold other things than images.
ARRAY_EXTENSIONS = (".npy", ".npz", ".dcm")

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
        paths, each of which :func:`moco_det.data.decoding.decode_rgb` reads; that of an image in a shard is a
        :class:`moco_det.data.shards.Place`.

    Raises:
        ValueError: nothing is there, no image is found, none of a list's files exists, a shard is missing, or a
            folder holds both images and shards.
    """
    if os.path.isdir(where):
        return _in_folder(where)
    if shards.is_shard(where):
        return _in_shards(shards.shards_of(where))
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
    return {place: place for place in shards.find_members([shard], (*EXTENSIONS, *ARRAY_EXTENSIONS))}


def file_of(path: str) -> str:
    """The file that holds an image: itself, or its shard."""
    return path.shard if isinstance(path, shards.Place) else path


def _in_shards(archives: Iterable[str]) -> list[str]:
    """The images of shards; as in folders, arrays where there is nothing else."""
    places = shards.find_members(archives, (*EXTENSIONS, *ARRAY_EXTENSIONS))
    images = [place for place in places if not place.lower().endswith(ARRAY_EXTENSIONS)]
    return images if any(not place.error for place in images) else places


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
        return _in_shards(plain)
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
            group = _in_shards(archives)
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


def folder_above(path: str) -> str | None:
    """The nearest folder above a missing file in which a file of its name lies: labeling tools write folders of
    their own before the name."""
    name, above = os.path.basename(path), os.path.dirname(os.path.dirname(path))
    for _ in range(3):
        if os.path.isfile(os.path.join(above, name)):
            return above or "."
        above = os.path.dirname(above)
    return None


def register_imagenet() -> None:
    """Register ``imagenet_train`` ($DETECTRON2_DATASETS/imagenet/train, all images below it), once."""
    if "imagenet_train" not in DatasetCatalog:
        DatasetCatalog.register("imagenet_train", _imagenet_train)


def _imagenet_train() -> list[dict]:
    return [{"file_name": path} for path in find_images(os.path.join(datasets_root(), "imagenet", "train"))]
