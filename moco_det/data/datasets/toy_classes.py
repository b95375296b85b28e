"""The classes of the procedural toy world, in the order of their contiguous ids, and what LVIS calls them."""

from collections.abc import Sequence

from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES

# Each is a kind with sub-kinds of its own (moco_det/toyworld/kinds.py).
TOY_CLASSES: tuple[str, ...] = (
    "bird",
    "fish",
    "butterfly",
    "beetle",
    "flower",
    "tree",
    "mushroom",
    "snail",
    "car",
    "boat",
    "house",
    "cup",
)

# The points of an object in the toy world's keypoint layout: the middle one of the pixels furthest to a side, and
# the pixel nearest to the center of mass. Sides are the image's, so a mirror swaps left and right.
TOY_KEYPOINTS: tuple[str, ...] = ("top", "bottom", "left", "right", "center")
TOY_KEYPOINT_FLIPS: tuple[tuple[str, str], ...] = (("left", "right"),)

# The nearest category for a kind that LVIS has under another name. By LVIS's own count three of all are rare.
_LIKE = {
    "flower": "flower_arrangement",
    "tree": "Christmas_tree",
    "snail": "escargot",
    "car": "car_(automobile)",
    "house": "dollhouse",
}


def lvis_categories(classes: Sequence[str]) -> list[dict]:
    """For each class, the entry of LVIS v1's list that it stands for: id, name, synonyms, synset, def, frequency.

    A class (of cut-outs) that LVIS has not is a common category with an id beyond LVIS's.
    """
    known = {synonym: entry for entry in reversed(LVIS_CATEGORIES) for synonym in entry["synonyms"]}
    known |= {entry["name"]: entry for entry in LVIS_CATEGORIES}
    categories, taken = [], set()
    for number, name in enumerate(classes, start=1):
        entry = known.get(_LIKE.get(name, name))
        if entry is None or entry["id"] in taken:
            entry = {"id": len(LVIS_CATEGORIES) + number, "name": name, "synonyms": [name], "frequency": "c"}
        taken.add(entry["id"])
        categories.append(dict(entry))
    return categories
