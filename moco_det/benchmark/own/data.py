"""The user's labels and images as a study sees them, and what would make its answer wrong.

A share of the labels is the one that fine-tuning takes (:func:`moco_det.data.labels.take_labels`): of each
seed, and a smaller one is part of a larger one.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from moco_det.benchmark.own.sizes import DataFacts
from moco_det.config import get_cfg
from moco_det.data.datasets.own import OPTIONS, register_datasets
from moco_det.data.decoding import decode_rgb
from moco_det.data.image_files import find_images, folder_above, registered_images
from moco_det.data.labels import take_labels
from moco_det.data.near_duplicates import find_pairs
from moco_det.utils.seeding import numpy_generator

LEAST_IMAGES = 8
SEEDS_TRIED = 100
# Of kNN's object crops: at most so many of each class in each half, and context around a box as a part of its
# side.
CROPS, CONTEXT = 40, 0.1


@dataclass(frozen=True)
class OwnData:
    """A labeled set with its test set and the images to pre-train on.

    Attributes:
        train, test: names of registered data sets.
        records: labeled images to train on, as fine-tuning takes them: those that hold a box.
        unlabeled: paths; where: what ``--images`` said, "" for the training images.
        digest: of the labels of both sets, whatever folder they are in.
    """

    train: str
    test: str
    records: list[dict]
    unlabeled: list[str]
    where: str
    facts: DataFacts
    digest: str


def read_data(args: argparse.Namespace) -> OwnData:
    """Register and read what the command line names.

    Raises:
        ValueError: it is not a labeled set with a test set and images to pre-train on; says which and why.
    """
    cfg = get_cfg()
    for option in (*OPTIONS, "register"):
        given = getattr(args, option)
        cfg.DATASETS[option.upper()] = tuple(row if option == "register" else tuple(row) for row in given)
    register_datasets(cfg)
    train, test = _names(args)
    labels = {name: _read_labels(name) for name in (train, test)}
    _check_classes(train, test)
    _check_apart(train, test, labels)
    records = [record for record in labels[train] if _boxes(record)]
    if len(records) < LEAST_IMAGES:
        raise ValueError(
            f"data set {train!r} has {len(records)} images with boxes; expected {LEAST_IMAGES} or more to "
            "train on"
        )
    unlabeled = find_images(args.images) if args.images else registered_images([train])
    facts = _facts(train, records, unlabeled)
    digest = hashlib.sha256(json.dumps([_plain(r) for name in labels for r in labels[name]]).encode())
    return OwnData(train, test, records, unlabeled, args.images, facts, digest.hexdigest()[:12])


def _names(args: argparse.Namespace) -> tuple[str, str]:
    """The training and the test set: ``--train`` and ``--test``, or the only two that are given."""
    given = [row[0] for option in OPTIONS for row in getattr(args, option)]
    if not (args.train or args.test) and len(given) == 2:
        return given[0], given[1]
    if not (args.train and args.test):
        raise ValueError(
            f"which set is trained on and which is tested on? found {len(given)} of your own "
            f"({', '.join(given) or 'none'}); give two, --voc or --coco, first the training set, or "
            "--train NAME and --test NAME. moco-det split makes two of one file in COCO's format"
        )
    for name in (args.train, args.test):
        if name not in DatasetCatalog:
            raise ValueError(f"there is no data set {name!r}; name it with --voc, --coco or --register")
    return args.train, args.test


def _read_labels(name: str) -> list[dict]:
    try:
        records = DatasetCatalog.get(name)
    except (OSError, AssertionError, KeyError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"the labels of data set {name!r} cannot be read ({reason})") from error
    classes = MetadataCatalog.get(name).get("thing_classes")
    if not classes or not any("annotations" in record for record in records):
        raise ValueError(
            f"data set {name!r} has no boxes; a study compares detectors: give sets by --coco or --voc"
        )
    if not any(os.path.exists(record["file_name"]) for record in records):
        raise ValueError(
            f"none of the {len(records)} images of data set {name!r} exists, e.g. "
            f"{records[0]['file_name']!r}{_place(records[0]['file_name'])}: the labels are of another set, "
            "or the folder of the images is another one"
        )
    return records


def _place(path: str) -> str:
    """Where a missing image lies, if it does without folders that the labels name."""
    above = folder_above(path)
    if not above:
        return ""
    return (
        f", but {os.path.join(above, os.path.basename(path))!r} does; moco-det split --images makes names fit"
    )


def leak_notes(data: OwnData, leaks: Sequence[str]) -> list[str]:
    """What to know where labeled training images show what test images show.

    Args:
        leaks: of :func:`leaked_images`.
    """
    labeled = [os.path.abspath(record["file_name"]) for record in data.records]
    if data.where:  # the leaks are those of other images
        leaks = [os.path.abspath(path) for path, _ in find_pairs(labeled, registered_images([data.test]))]
    found = sorted({*labeled} & {*leaks})
    if not found:
        return []
    return [
        f"{len(found):,} of the {len(labeled):,} labeled training images show what test images show, e.g. "
        f"{found[0]!r}: every start trains on them, so all APs are too high; take them out of the labels, or "
        "split these by groups (moco-det split --group)"
    ]


def _check_classes(train: str, test: str) -> None:
    ours, theirs = (list(MetadataCatalog.get(name).thing_classes) for name in (train, test))
    if ours != theirs:
        differing = sorted({*ours} ^ {*theirs}) or ["none, but their order differs"]
        raise ValueError(
            f"the labels of {test!r} are of another set than those of {train!r}: they have {len(theirs)} "
            f"and {len(ours)} classes, not in both: {', '.join(differing[:10])}; give a test set with the "
            "same classes in the same order"
        )


def _check_apart(train: str, test: str, labels: dict[str, list[dict]]) -> None:
    ours, theirs = ({os.path.realpath(r["file_name"]) for r in labels[name]} for name in (train, test))
    if both := sorted(ours & theirs):
        raise ValueError(
            f"{len(both):,} images are in {train!r} and in {test!r}, e.g. {both[0]!r}; give a test set of "
            "other images"
        )


def _boxes(record: dict) -> list[tuple[float, float, float, float]]:
    """Of the objects that fine-tuning trains on, x0, y0, x1, y1 in pixels."""
    return [
        tuple(BoxMode.convert(list(map(float, box["bbox"])), box["bbox_mode"], BoxMode.XYXY_ABS))
        for box in record.get("annotations", ())
        if not box.get("iscrowd", 0)
    ]


def _plain(record: dict) -> list:
    kinds = [box["category_id"] for box in record.get("annotations", ())]
    return [os.path.basename(record["file_name"]), kinds, _boxes(record)]


def _facts(name: str, records: Sequence[dict], unlabeled: Sequence[str]) -> DataFacts:
    parts = [
        max((x1 - x0) * (y1 - y0), 0.0) ** 0.5 / min(record["width"], record["height"])
        for record in records
        for x0, y0, x1, y1 in _boxes(record)
    ]
    return DataFacts(
        name=name,
        num_images=len(records),
        unlabeled=len(unlabeled),
        classes=tuple(MetadataCatalog.get(name).thing_classes),
        boxes=len(parts) / len(records),
        side=int(np.median([min(record["width"], record["height"]) for record in records])),
        box_sides=tuple(float(q) for q in np.quantile(parts, (0.1, 0.5, 0.9))),
    )


# ---- shares of the labels --------------------------------------------------------------------------------------


def classes_of(records: Sequence[dict]) -> set[int]:
    """The numbers of the classes that have a box in the images."""
    return {
        box["category_id"] for record in records for box in record["annotations"] if not box.get("iscrowd", 0)
    }


def choose_shares(
    records: Sequence[dict], shares: Sequence[float], num_seeds: int
) -> tuple[list[float], list[int], list[str]]:
    """The shares that can be trained on, and the seeds: the first whose images of the smallest share hold each
    class.

    Args:
        shares: above 0 up to 1.

    Returns:
        shares, smallest first; ``num_seeds`` seeds; a sentence on each share that is left out.

    Raises:
        ValueError: none is left.
    """
    kept, notes, every = [], [], classes_of(records)
    for share in sorted(set(shares)):
        count = len(take_labels(records, share, seed=1))
        if count < LEAST_IMAGES:
            notes.append(f"{share:.0%} of the labels is left out: {count} images, fewer than {LEAST_IMAGES}")
            continue
        seeds = [s for s in range(1, SEEDS_TRIED + 1) if classes_of(take_labels(records, share, s)) == every]
        if len(seeds) < num_seeds:
            notes.append(
                f"{share:.0%} of the labels is left out: its {count} images hold each of the {len(every)} "
                f"classes with {len(seeds)} of {SEEDS_TRIED} seeds"
            )
            continue
        kept.append((share, seeds[:num_seeds]))
    if not kept:
        raise ValueError(
            f"no share of the labels is left: {'; '.join(notes)}; give --shares with larger ones"
        )
    return [share for share, _ in kept], kept[0][1], notes


# ---- test images among the unlabeled ones ----------------------------------------------------------------------


def leaked_images(data: OwnData) -> list[str]:
    """The images to pre-train on that show what test images show, as ``--exclude`` of pre-training takes them."""
    pairs = find_pairs(data.unlabeled, registered_images([data.test]))
    return [os.path.abspath(path) for path in dict.fromkeys(path for path, _ in pairs)]


# ---- what watches pre-training ---------------------------------------------------------------------------------


def write_object_crops(data: OwnData, folder: Path) -> None:
    """Crops of labeled training objects, for kNN: ``folder/{train,val}/<class>/<number>.jpg``, apart by image.

    A class with fewer than two images is left out. Nothing of the test set is in them.
    """
    by_class: dict[str, dict[int, tuple]] = {}
    for number, record in enumerate(data.records):
        for annotation, box in zip(_trained(record), _boxes(record), strict=True):
            by_class.setdefault(data.facts.classes[annotation["category_id"]], {}).setdefault(number, box)
    for name, boxes in by_class.items():
        order = numpy_generator(0, "crops").permutation(sorted(boxes))[: 2 * CROPS]
        for place, number in enumerate(order if len(order) > 1 else ()):
            part = folder / ("train", "val")[place % 2] / name.replace("/", "_")
            part.mkdir(parents=True, exist_ok=True)
            _crop(data.records[number]["file_name"], boxes[number]).save(part / f"{number}.jpg", quality=95)


def _trained(record: dict) -> list[dict]:
    return [box for box in record["annotations"] if not box.get("iscrowd", 0)]


def _crop(path: str, box: Sequence[float]):
    """The square around a box, with some context."""
    image = decode_rgb(path)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = max(box[2] - box[0], box[3] - box[1], 8) * (0.5 + CONTEXT)
    left, top = max(0, round(x - half)), max(0, round(y - half))
    return image.crop((left, top, min(image.width, round(x + half)), min(image.height, round(y + half))))
