"""Which category of LVIS v1 each class of a toy world stands for: its files and their reader agree on it."""

from collections.abc import Sequence

from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES

# The nearest category for a kind that LVIS has under another name. By LVIS's own count three of all are rare.
_LIKE = {
    "flower": "flower_arrangement",
    "tree": "Christmas_tree",
    "snail": "escargot",
    "car": "car_(automobile)",
    "house": "dollhouse",
}


def lvis_categories(classes: Sequence[str]) -> list[dict]:
    """Of each class, the entry in LVIS v1's list: id, name, synonyms, synset, def and frequency (r, c or f).

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
