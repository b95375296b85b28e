"""Test images that pre-training or training has seen: counted, listed, and written for ``--exclude``."""

import os
from collections.abc import Sequence

from detectron2.data import DatasetCatalog

from moco_det.data.image_files import find_images, registered_images
from moco_det.data.near_duplicates import find_pairs
from moco_det.utils.files import atomic_write

NUM_EXAMPLES = 10


def report_leaks(names: Sequence[str], places: Sequence[str], list_file: str) -> int:
    """Print which images of ``places`` show what images of the data sets show.

    Args:
        names: registered data sets, those that are tested on.
        places: data sets, or what ``--images`` of pre-training takes.
        list_file: written with the images of ``places``, one per line, as ``--exclude`` takes it; empty: none.

    Returns:
        how many images of ``places`` there are to exclude.

    Raises:
        ValueError: a place is neither a data set nor holds images.
    """
    tested = registered_images(names)
    leaked: dict[str, None] = {}
    for place in places:
        seen = registered_images([place]) if place in DatasetCatalog else find_images(place)
        # The same file is no surprise in a set that is trained and tested on, but it is a leak all the same.
        pairs = find_pairs(seen, tested)
        found = dict.fromkeys(path for path, _ in pairs)
        leaked |= found
        print(f"\n{len(found):,} of {len(seen):,} images in {place} are also in {', '.join(names)}")
        for path, test in pairs[:NUM_EXAMPLES]:
            print(f"  {path}  shows  {test}")
        if len(pairs) > NUM_EXAMPLES:
            print("  …")
    if list_file:
        with atomic_write(list_file) as file:
            lines = (f"{os.path.abspath(path)}\n" for path in leaked)
            file.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    return len(leaked)
