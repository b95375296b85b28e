"""``tools/split_labels.py``: one label file in COCO's format becomes two, to train on and to test on.

Labeling tools export all images in one file. Images that belong together, such as the frames of a video, have to
stand on the same side, else a detector is tested on what it has seen.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write
from moco_det.utils.seeding import numpy_generator
from moco_det_cli.parsers.data import split_parser

TRAIN, TEST = "train.json", "test.json"


def split_labels(
    labels: dict[str, Any], test: float, seed: int = 0, group: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training and the test part of a COCO file; every image, with all its objects, stands in one of them.

    Args:
        labels: the content of a file in COCO's format.
        test: fraction of the images to test on, in (0, 1). With groups it is reached to the size of the last.
        seed: of the random order in which groups are taken for the test.
        group: a regular expression; images in whose file names it matches the same text stay together.

    Raises:
        ValueError: the fraction, the expression or the file cannot be split so.
    """
    if not 0 < test < 1:
        raise ValueError(f"--test is {test:g}; expected a fraction above 0 and below 1")
    groups = defaultdict(list)
    for image in labels["images"]:
        groups[_group_of(image["file_name"], group)].append(image)
    names = sorted(groups)
    if len(names) < 2:
        what = (
            f"--group {group!r} puts all {len(labels['images'])} images into one group"
            if group
            else "one image"
        )
        raise ValueError(f"{what}; expected two or more, to stand on different sides")
    wanted, chosen = test * len(labels["images"]), set()
    for number in numpy_generator(seed, "split of labels").permutation(len(names))[: len(names) - 1]:
        if len(chosen) >= wanted:
            break
        chosen |= {image["id"] for image in groups[names[number]]}
    return _part(labels, lambda image: image not in chosen), _part(labels, chosen.__contains__)


def _group_of(name: str, group: str) -> str:
    """What the expression matches in a name: its first group, if it has one; without an expression the name."""
    if not group:
        return name
    try:
        found = re.search(group, name)
    except re.error as error:
        raise ValueError(f"--group {group!r} is no regular expression: {error}") from error
    if not found:
        raise ValueError(f"--group {group!r} matches nothing in {name!r}; expected a part of every file name")
    return found[1] if found.re.groups else found[0]


def _part(labels: dict[str, Any], belongs: Callable[[Any], bool]) -> dict[str, Any]:
    images = [image for image in labels["images"] if belongs(image["id"])]
    annotations = [each for each in labels["annotations"] if belongs(each["image_id"])]
    return {**labels, "images": images, "annotations": annotations}


def read_labels(path: str) -> dict[str, Any]:
    """A label file in COCO's format.

    Raises:
        ValueError: it is another one; says what is missing.
    """
    try:
        labels = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--coco {path!r} is not readable as JSON: {error}") from error
    parts = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "category_id"),
        "categories": ("id", "name"),
    }
    for part, keys in parts.items():
        rows = labels.get(part) if isinstance(labels, dict) else None
        if not isinstance(rows, list):
            raise ValueError(f"--coco {path!r} has no list {part!r}; expected a label file in COCO's format")
        for number, row in enumerate(rows):
            missing = [key for key in keys if not isinstance(row, dict) or key not in row]
            if missing:
                raise ValueError(f"--coco {path!r}: number {number} of {part!r} has no {missing[0]!r}")
    return labels


def with_places(labels: dict[str, Any], folder: str) -> dict[str, Any]:
    """The labels with file names that are right below ``folder``: as they are, or without the folders before.

    Raises:
        ValueError: an image is at neither place.
    """
    images = []
    for image in labels["images"]:
        name = image["file_name"]
        fitting = [n for n in (name, os.path.basename(name)) if os.path.isfile(os.path.join(folder, n))]
        if not fitting:
            raise ValueError(
                f"--images {folder!r} has neither {name!r} nor {os.path.basename(name)!r}, which the labels name; "
                "expected the folder of the images"
            )
        images.append({**image, "file_name": fitting[0]})
    return {**labels, "images": images}


def describe(parts: dict[str, dict[str, Any]]) -> str:
    """Images and objects of each part, and which categories a part lacks."""
    lines, notes = [], []
    for name, part in parts.items():
        lines.append(f"{name}: {len(part['images']):,} images, {len(part['annotations']):,} objects")
        there = {each["category_id"] for each in part["annotations"]}
        lacking = [category["name"] for category in part["categories"] if category["id"] not in there]
        if lacking:
            notes.append(
                f"note: {name} has no object of {', '.join(lacking)}; another --seed or --test may help"
            )
    return "\n".join(lines + notes)


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Entry of ``tools/split_labels.py``."""
    args = split_parser().parse_args(argv)
    output = Path(args.output)
    paths = {name: output / name for name in (TRAIN, TEST)}
    for path in paths.values():
        if path.exists():
            raise ValueError(f"{str(path)!r} exists already; choose another --output, or remove it")
    labels = read_labels(args.coco)
    if args.images:
        labels = with_places(labels, args.images)
    parts = dict(zip(paths, split_labels(labels, args.test, args.seed, args.group), strict=True))
    output.mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(parts[name]), encoding="utf-8")
    print(describe(parts))
    images = args.images or "IMAGES"
    sets = " ".join(f"--coco {path.stem} {path} {images}" for path in paths.values())
    print(f"next: moco-det benchmark own {sets} --output output/own")
