"""The categories of a label file in COCO's format, read without the rest of a file of hundreds of megabytes."""

import json
import mmap
import re

_KEY = re.compile(rb'"categories"\s*:\s*')


def read_categories(path: str) -> list[dict]:
    """The list ``categories``, in the order of the ids; detectron2 numbers classes in this order.

    Raises:
        ValueError: the file is not JSON in COCO's format; OSError: it cannot be opened.
    """
    categories = _of_part(path)
    if categories is None:
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path!r} is not JSON ({error}); expected a label file in COCO's format"
            ) from error
        categories = content.get("categories") if isinstance(content, dict) else None
    if not _are_categories(categories):
        raise ValueError(
            f"{path!r} has no list of categories, each with id and name (a word); expected a label file in COCO's "
            "format"
        )
    if len({type(category["id"]) for category in categories}) > 1:
        raise ValueError(f"{path!r}: some ids of categories are words and some numbers; expected numbers")
    return sorted(categories, key=lambda category: category["id"])


def _of_part(path: str) -> list | None:
    """What follows the file's only word "categories"; None where the whole file must say it."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = [match.end() for match in _KEY.finditer(content)]
            if len(found) != 1:
                return None
            # A list of categories is far shorter than this; where it is not, the whole file is read.
            text = content[found[0] : found[0] + 2**22].decode("utf-8", errors="replace")
            return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):  # an empty file cannot be mapped
        return None


def _are_categories(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(c, dict) and isinstance(c.get("name"), str) and isinstance(c.get("id"), int | str)
            for c in value
        )
    )


def keypoint_names(categories: list[dict]) -> list[str]:
    """The names of the keypoints that categories have; empty where they have none.

    Raises:
        ValueError: two categories have different ones, which no detector of detectron2 takes.
    """
    lists = [list(category["keypoints"]) for category in categories if category.get("keypoints")]
    if any(names != lists[0] for names in lists):
        raise ValueError(f"categories have different keypoints, e.g. {lists[:2]}; expected the same for all")
    return lists[0] if lists else []
