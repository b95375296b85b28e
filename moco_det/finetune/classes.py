"""Classes follow the data: their number is the set's own, and the sets of a run agree on names and order."""

import os
from collections.abc import Sequence

import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from moco_det.config import known_keys, value_of
from moco_det.data.datasets.coco_file import keypoint_names, read_categories
from moco_det.data.datasets.own import IGNORE_LABEL, flip_map

BOXES = ("MODEL.ROI_HEADS.NUM_CLASSES", "thing_classes")
SEMANTIC = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "stuff_classes")
# Of each architecture, the keys that count classes and the metadata that list them.
_LISTS = {
    "GeneralizedRCNN": (BOXES,),
    "RetinaNet": (("MODEL.RETINANET.NUM_CLASSES", "thing_classes"),),
    "FCOS": (("MODEL.FCOS.NUM_CLASSES", "thing_classes"),),
    "SemanticSegmentor": (SEMANTIC,),
    "PanopticFPN": (BOXES, SEMANTIC),
}
KEYPOINTS = ("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "keypoint_names")


def complete_metadata(name: str) -> None:
    """Add to a registered set's metadata what detectron2's builtin sets have and this one leaves out.

    That is ``evaluator_type``, which ``register_pascal_voc`` leaves out, and the names of classes, which
    ``register_coco_instances`` learns only while it reads the labels.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") is None and (kind := _kind(metadata)):
        metadata.evaluator_type = kind
    if metadata.get("stuff_classes") and metadata.get("ignore_label") is None:
        metadata.ignore_label = IGNORE_LABEL
    file = metadata.get("json_file")
    if metadata.get("evaluator_type") != "coco" or not file or not os.path.isfile(file):
        return
    try:
        categories = read_categories(file)
        points = keypoint_names(categories)
    except ValueError:  # reading the labels says it
        return
    if metadata.get("thing_classes") is None:
        metadata.thing_classes = [category["name"] for category in categories]
    if points and metadata.get("keypoint_names") is None:
        metadata.keypoint_names, metadata.keypoint_flip_map = points, flip_map(points)


def _kind(metadata) -> str | None:
    if metadata.get("dirname") and metadata.get("split") and metadata.get("thing_classes"):
        return "pascal_voc"
    if metadata.get("json_file") or metadata.get("thing_classes"):
        return "coco"
    return "sem_seg" if metadata.get("stuff_classes") else None


def lists_of(cfg: CfgNode) -> tuple[tuple[str, str], ...]:
    """The keys that count classes (or keypoints) in a config's model, each with the metadata that list them."""
    lists = _LISTS.get(cfg.MODEL.META_ARCHITECTURE, ())
    return (*lists, KEYPOINTS) if lists and lists[0] == BOXES and cfg.MODEL.KEYPOINT_ON else lists


def count_classes(cfg: CfgNode, names: Sequence[str], config_file: str, opts: Sequence[str]) -> None:
    """Take the numbers of classes from the data, unless they were given for these data.

    A number counts as given when it is set where the data sets are named, or above: on the command line, in the
    same file, in a file over it. One below, in a recipe for other data, is replaced.

    Args:
        names: the data sets of the run.
        opts: the KEY VALUE pairs of the command line.
    """
    names = [name for name in names if name in DatasetCatalog]
    for name in names:
        complete_metadata(name)
    layers = [*_layers(config_file), list(opts[0::2])]
    named = max(_layer(key, layers) for key in ("DATASETS.TRAIN", "DATASETS.TEST"))
    for key, listed in lists_of(cfg):
        listing = MetadataCatalog.get(names[0]).get(listed) if names else None
        if listing is not None and _layer(key, layers) < named:
            cfg.merge_from_list([key, len(listing)])


def classes_rows(cfg: CfgNode, name: str) -> list[tuple[str, str]]:
    """The keys that count classes, each with its number and the names."""
    return [
        (
            key,
            f"{value_of(cfg, key)}, as data set {name!r} has them: {shown(MetadataCatalog.get(name).get(listed))}",
        )
        for key, listed in lists_of(cfg)
        if MetadataCatalog.get(name).get(listed) is not None
    ]


def _layers(path: str) -> list[list[str]]:
    """The keys that a YAML file and those below it set, the lowest file first."""
    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file) or {}
    bases = content.pop("_BASE_", [])
    below = []
    for base in [bases] if isinstance(bases, str) else bases:
        base = os.path.expanduser(base)
        below += _layers(base if os.path.isabs(base) else os.path.join(os.path.dirname(path), base))
    return [*below, known_keys(CfgNode(content))]


def _layer(key: str, layers: Sequence[Sequence[str]]) -> int:
    """The place of the highest layer that sets a key; -1 where none does."""
    return max((place for place, keys in enumerate(layers) if key in keys), default=-1)


def check_classes(cfg: CfgNode, names: Sequence[str]) -> None:
    """Refuse sets that differ in the names or the order of their classes, and a number that is not theirs.

    Raises:
        ValueError: names the key or the two sets, with both numbers and lists.
    """
    for key, listed in lists_of(cfg):
        listings = [(name, _listing(name, listed)) for name in dict.fromkeys(names)]
        listings = [(name, listing) for name, listing in listings if listing is not None]
        if not listings:
            continue
        for name, listing in listings:
            if listing != listings[0][1]:
                raise ValueError(_disagreement(*listings[0], name, listing))
        name, listing = listings[0]
        if value_of(cfg, key) != len(listing):
            raise ValueError(
                f"{key} is {value_of(cfg, key)}, but data set {name!r} has {len(listing)} "
                f"{'keypoints' if listed == KEYPOINTS[1] else 'classes'} ({shown(listing)}); give {key} "
                f"{len(listing)}, or leave it out"
            )


def _listing(name: str, listed: str) -> list[str] | None:
    """None for a set that does not say its classes, which only an evaluator from outside measures."""
    listing = MetadataCatalog.get(name).get(listed)
    if listing is not None:
        return list(listing)
    if listed == KEYPOINTS[1]:
        raise ValueError(
            f"MODEL.KEYPOINT_ON is True, but data set {name!r} has no keypoints (its metadata no keypoint_names "
            "and keypoint_flip_map); take another data set or give MODEL.KEYPOINT_ON False"
        )
    return None


def _disagreement(one: str, classes: Sequence[str], other: str, others: Sequence[str]) -> str:
    """What is different between the classes of two sets, in words."""
    if sorted(map(str, classes)) == sorted(map(str, others)):
        reason = "the names are the same in another order"
    else:
        lacks = [name for name in classes if name not in others]
        more = [name for name in others if name not in classes]
        parts = [f"{other!r} lacks {', '.join(map(str, lacks))}"] if lacks else []
        parts += [f"{one!r} lacks {', '.join(map(str, more))}"] if more else []
        reason = "; ".join(parts)
    return (
        f"the classes of {one!r} ({len(classes)}: {shown(classes)}) and of {other!r} ({len(others)}: "
        f"{shown(others)}) differ: {reason}. Give both the same list in the same order (in COCO's format "
        "'categories', numbered by their ids, also those that a file has no object of)"
    )


def shown(listing: Sequence[str]) -> str:
    """The names of classes, the first twenty of many."""
    rest = ", …" if len(listing) > 20 else ""
    return ", ".join(map(str, listing[:20])) + rest
