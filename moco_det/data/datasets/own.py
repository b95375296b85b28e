"""Data sets of the user's own: one set of options for all tools, and the same as config keys.

``--coco NAME JSON IMAGES``, ``--voc NAME FOLDER SPLIT``, ``--semantic NAME IMAGES LABELS CLASSES`` and
``--register FILE.py`` may each be given several times; ``DATASETS.COCO`` and so on hold the same rows in YAML.
Sets are registered as detectron2 registers its builtin ones, so every tool that takes a name takes these.
"""

import argparse
import importlib
import importlib.util
import os
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from moco_det.data.datasets.coco_file import keypoint_names, read_categories
from moco_det.data.datasets.voc_files import list_file, load_voc
from moco_det.data.image_files import EXTENSIONS
from moco_det_cli.parsers.choices import DATASET_OPTIONS as OPTIONS

IGNORE_LABEL = 255
# A lossy format changes the numbers of classes.
LABEL_EXTENSIONS = tuple(e for e in EXTENSIONS if e not in (".jpg", ".jpeg", ".webp"))
# Those of the words that are files and folders.
_PLACES = ("JSON", "IMAGES", "FOLDER", "LABELS", "CLASSES")
# What this process registered here, so that it may do so again, and which files and modules it ran.
_registered: dict[str, tuple] = {}
_ran: set[str] = set()


def dataset_words(args: argparse.Namespace) -> list[str]:
    """The options as words, to hand on to another tool, which may run in another folder."""
    words = []
    for option, kinds in OPTIONS.items():
        for row in getattr(args, option):
            words.append(f"--{option}")
            words += [
                _absolute(word) if kind in _PLACES else word for kind, word in zip(kinds, row, strict=True)
            ]
    return words + [word for file in args.register for word in ("--register", _absolute(file))]


def _absolute(word: str) -> str:
    return os.path.abspath(word) if os.path.exists(word) else word


def settle_datasets(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Put the options into the config, and register what it then names.

    Raises:
        ValueError: see :func:`register_datasets`; or a set was named that the config then does not use.
    """
    for option in (*OPTIONS, "register"):
        given = [row if option == "register" else tuple(row) for row in getattr(args, option, ())]
        cfg.DATASETS[option.upper()] = (*cfg.DATASETS[option.upper()], *given)
    register_datasets(cfg)
    used = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    for option in OPTIONS:
        for name, *_ in getattr(args, option, ()):
            if name not in used:
                raise ValueError(
                    f"--{option} {name}: the run uses {', '.join(sorted(used)) or 'no data set'}; give also "
                    f"DATASETS.TRAIN \"('{name}',)\" or DATASETS.TEST \"('{name}',)\" (or leave --{option} out)"
                )


def register_datasets(cfg: CfgNode) -> None:
    """Register the sets of DATASETS.COCO, VOC and SEMANTIC, and run those of DATASETS.REGISTER.

    Called in each process that reads data; again does no harm.

    Raises:
        ValueError: a file or folder is not there, a name is taken, or a registration fails; names the option.
    """
    for file in cfg.DATASETS.REGISTER:
        _run(file)
    for option, words in OPTIONS.items():
        for row in cfg.DATASETS[option.upper()]:
            if len(row) != len(words):
                raise ValueError(
                    f"DATASETS.{option.upper()} holds {tuple(row)}; expected rows of ({', '.join(words)})"
                )
            _register_row(option, tuple(map(str, row)))


def _register_row(option: str, row: tuple[str, ...]) -> None:
    name, *places = row
    if _registered.get(name) == (option, *row) and name in DatasetCatalog:
        return
    if name in _registered and name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    if name in DatasetCatalog:
        raise ValueError(f"--{option} {name}: there is a data set of this name already; choose another name")
    try:
        {"coco": register_coco, "voc": register_voc, "semantic": register_semantic}[option](name, *places)
    except ValueError as error:
        raise ValueError(f"--{option} {name}: {error}") from error
    _registered[name] = (option, *row)


def _run(file: str) -> None:
    if file in _ran:
        return
    try:
        if file.endswith(".py"):
            _need(file, os.path.isfile, "a Python file")
            spec = importlib.util.spec_from_file_location(f"registered_by_{Path(file).stem}", file)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        else:
            importlib.import_module(file)
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"--register {file}: {reason} ({os.path.basename(line.filename)}, line {line.lineno})"
        ) from error
    _ran.add(file)


def _need(path: str, exists: Callable[[str], bool], what: str) -> None:
    if not exists(path):
        found = "is something else" if os.path.exists(path) else "does not exist"
        raise ValueError(f"{path!r} {found} (looked in {os.getcwd()!r}); expected {what}")


def register_coco(name: str, json_file: str, image_dir: str) -> None:
    """Register a set in COCO's format; keypoints where its categories name them."""
    _need(json_file, os.path.isfile, "a label file in COCO's format")
    _need(image_dir, os.path.isdir, "the folder of its images")
    categories = read_categories(json_file)
    points = keypoint_names(categories)
    metadata = {}
    if points:
        metadata = {"keypoint_names": points, "keypoint_flip_map": flip_map(points)}
    register_coco_instances(name, metadata, json_file, image_dir)


def register_voc(name: str, folder: str, split: str) -> None:
    """Register a split in VOC's layout; AP is that of VOC since 2010 (all points), never the 11-point one."""
    for part, what in (
        (list_file(folder, split), "a text file with one name a line"),
        (os.path.join(folder, "Annotations"), "a folder of XML files"),
        (os.path.join(folder, "JPEGImages"), "a folder of images"),
    ):
        _need(part, os.path.isfile if part.endswith(".txt") else os.path.isdir, what)
    classes = _voc_classes(folder)
    DatasetCatalog.register(name, lambda: load_voc(folder, split, classes))
    MetadataCatalog.get(name).set(
        evaluator_type="pascal_voc", thing_classes=classes, dirname=folder, split=split, year=2012
    )


def _voc_classes(folder: str) -> list[str]:
    listed = os.path.join(folder, "classes.txt")
    if os.path.isfile(listed):
        return read_names(listed)
    found = set()
    for path in sorted(Path(folder, "Annotations").glob("*.xml")):
        try:
            found |= {entry.findtext("name", "").strip() for entry in ET.parse(path).iter("object")}
        except (ET.ParseError, ValueError, LookupError, OSError) as error:
            raise ValueError(f"{str(path)!r} cannot be read as XML ({error}); fix or remove it") from error
    if not found - {""}:
        raise ValueError(f"no object with a name in {os.path.join(folder, 'Annotations')!r}")
    return sorted(found - {""})


def read_names(word: str) -> list[str]:
    """Names of classes: ``"a,b,c"``, or a text file with one per line.

    Raises:
        ValueError: there is none, or one appears twice.
    """
    if os.path.isfile(word):
        names = Path(word).read_text(encoding="utf-8-sig").splitlines()
    elif word.endswith(".txt"):
        raise ValueError(f"{word!r} does not exist (looked in {os.getcwd()!r}); expected names of classes")
    else:
        names = word.split(",")
    names = [name.strip() for name in names if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the names of the classes are {names}; expected one or more, each once")
    return names


def flip_map(points: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of keypoints that a horizontal flip swaps: the same name with "left" and "right"."""
    pairs = [
        (p, p.replace("left", "right").replace("Left", "Right").replace("LEFT", "RIGHT")) for p in points
    ]
    return [(left, right) for left, right in pairs if left != right and right in points]


def register_semantic(name: str, image_dir: str, label_dir: str, classes: str) -> None:
    """Register images with label images of the same names (below their folders, with any extension)."""
    _need(image_dir, os.path.isdir, "a folder of images")
    _need(label_dir, os.path.isdir, "a folder of label images")
    DatasetCatalog.register(name, lambda: load_semantic(image_dir, label_dir))
    MetadataCatalog.get(name).set(
        evaluator_type="sem_seg",
        stuff_classes=read_names(classes),
        ignore_label=IGNORE_LABEL,
        image_root=image_dir,
        sem_seg_root=label_dir,
    )


def load_semantic(image_dir: str, label_dir: str) -> list[dict]:
    """Records of images and their label images, in the order of the names.

    Raises:
        ValueError: a folder has none, or an image has no label image.
    """
    found, labeled = _by_stem(image_dir, EXTENSIONS), _by_stem(label_dir, LABEL_EXTENSIONS)
    missing = sorted(found.keys() - labeled.keys())
    if not found:
        raise ValueError(f"no image in {image_dir!r}; looked for {', '.join(EXTENSIONS)}")
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(found)} images in {image_dir!r} have no label image in {label_dir!r}, e.g. "
            f"{missing[0]!r}; expected the same name with one of {', '.join(LABEL_EXTENSIONS)}"
        )
    return [
        {"file_name": found[stem], "sem_seg_file_name": labeled[stem], "image_id": stem}
        for stem in sorted(found)
    ]


def _by_stem(folder: str, extensions: Sequence[str]) -> dict[str, str]:
    """The files below a folder, by their path in it without extension.

    Raises:
        ValueError: two differ in nothing but the extension.
    """
    root, found = Path(folder), {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in extensions and path.name[0] != ".":
            stem = str(path.relative_to(root).with_suffix(""))
            if stem in found:
                raise ValueError(
                    f"{found[stem]!r} and {str(path)!r} have the same name but for the extension; keep the one "
                    "that is meant"
                )
            found[stem] = str(path)
    return found
