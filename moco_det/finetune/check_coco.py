"""The images and labels of data sets in the format of COCO or LVIS, for tools/check_datasets.py."""

import math
import os

from detectron2.data import Metadata

from moco_det.data.datasets.downloads import how_to_get
from moco_det.data.datasets.lvis import image_place
from moco_det.data.image_files import folder_above
from moco_det.finetune.check_findings import FAULT, MISSING, TOLERANCE, WARNING, Files, Findings

# What a record that is not as it should be raises when it is read.
_LVIS_FIELDS = ("neg_category_ids", "not_exhaustive_category_ids")
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)


def check_coco(metadata: Metadata, files: Files, findings: Findings) -> None:
    """A label file and the images that it names."""
    content = _content(metadata.json_file, files, findings)
    if content is None:
        return
    sizes = _check_images(content["images"], metadata, files, findings)
    findings.num_images = len(content["images"])
    categories = _check_categories(content["categories"], metadata, findings)
    if "annotations" not in content:
        findings.add(WARNING, "label file without annotations", os.path.basename(metadata.json_file))
        return
    labels = _Annotations(sizes, categories, metadata, findings)
    for annotation in content["annotations"]:
        labels.check(annotation)
    labels.check_all()
    for image_id in sizes:
        if image_id not in labels.image_ids:
            findings.add(WARNING, "image without annotation", f"image {image_id}")


def _content(path: str, files: Files, findings: Findings) -> dict | None:
    """A label file with the lists that it must have; None where it has not."""
    fix = how_to_get(findings.name, path)
    try:
        content = files.json(path)
    except (ValueError, OSError, RecursionError) as error:
        findings.add(FAULT, "label file that cannot be read", f"{os.path.basename(path)} ({error})", fix)
        return None
    lists = (
        "images",
        "categories",
        *(("annotations",) if isinstance(content, dict) and "annotations" in content else ()),
    )
    for name in lists:
        if not (isinstance(content, dict) and isinstance(content.get(name), list)):
            findings.add(FAULT, f"label file without a list of {name}", os.path.basename(path), fix)
            return None
    return content


def _check_images(
    entries: list[dict], metadata: Metadata, files: Files, findings: Findings
) -> dict[int, tuple[int, int]]:
    """Width and height in pixels of each image, by its id."""
    sizes = {}
    for number, image in enumerate(entries):
        try:
            image_id, size = image["id"], tuple(_refuse_strange_numbers([image["width"], image["height"]]))
            path = _path(image, metadata)
            for field in _LVIS_FIELDS if metadata.evaluator_type == "lvis" else ():
                image[field]
            if image_id in sizes:
                findings.add(FAULT, "image id that appears twice", f"image {image_id}")
            if min(size) <= 0:
                findings.add(FAULT, "image of zero size", f"image {image_id}")
            sizes[image_id] = size
        except _MALFORMED as error:
            findings.add(FAULT, "malformed image record", f"number {number} ({_reason(error)})")
            continue
        if not files.has(path):
            where = os.path.join(os.path.basename(os.path.dirname(path)), os.path.basename(path))
            above = folder_above(path)
            fix = f"without their folders they are in {above!r}: moco-det split --images makes the names fit"
            findings.add(MISSING, "image", where, fix if above else how_to_get(findings.name, path))
    return sizes


def _path(image: dict, metadata: Metadata) -> str:
    if metadata.evaluator_type == "lvis":
        folder = os.path.basename(metadata.image_folders[0])
        return os.path.join(metadata.image_root, *image_place(image, folder))
    return os.path.join(metadata.image_root, image["file_name"])


def _reason(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else str(error)


def _check_categories(categories: list[dict], metadata: Metadata, findings: Findings) -> set[int]:
    """The categories' ids."""
    names = {}
    for number, category in enumerate(categories):
        try:
            if category["id"] in names:
                findings.add(FAULT, "category id that appears twice", f"category {category['id']}")
            if category["name"] in names.values():
                findings.add(WARNING, "class name that appears twice", repr(category["name"]))
            if not isinstance(category["name"], str):
                raise ValueError(f"name {category['name']!r} where a word should be")
            names[category["id"]] = category["name"]
        except _MALFORMED as error:
            findings.add(FAULT, "malformed category record", f"number {number} ({_reason(error)})")
    expected_ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if expected_ids is not None:
        for category_id in sorted(set(names) ^ set(expected_ids), key=str):
            has = "has, but the data set not" if category_id in names else "lacks"
            findings.add(FAULT, f"category id that the label file {has}", str(category_id))
    # LVIS's names differ from detectron2's in their spelling; its reader goes by the ids.
    expected = metadata.get("thing_classes")
    if expected is not None and metadata.evaluator_type != "lvis":
        _compare(
            [names[key] for key in sorted(names, key=lambda key: (str(type(key)), key))], expected, findings
        )
    return set(names)


def _compare(names: list[str], expected: list[str], findings: Findings) -> None:
    """Names of classes in the order of their ids, with those of the data set."""
    for name in names:
        if name not in expected:
            findings.add(FAULT, "class name that is not in the class list", repr(name))
    for name in expected:
        if name not in names:
            findings.add(FAULT, "class that the label file lacks", repr(name))
    if sorted(map(str, names)) == sorted(expected) and list(names) != list(expected):
        place = next(n for n, pair in enumerate(zip(names, expected, strict=True)) if pair[0] != pair[1])
        findings.add(
            FAULT,
            "class list in another order",
            f"class {place} is {names[place]!r}, not {expected[place]!r}",
        )


def _refuse_strange_numbers(values: object) -> list:
    if not isinstance(values, list):
        raise ValueError(f"{values!r:.40} where a list of numbers should be")
    for value in values:
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError(f"{value!r:.40} where a number should be")
    return values


class _Annotations:
    """Checks annotations one by one.

    Args:
        sizes: width and height in pixels of each image, by its id.
        categories: the ids that the file defines.
    """

    def __init__(
        self, sizes: dict[int, tuple[int, int]], categories: set[int], metadata: Metadata, findings: Findings
    ):
        self._sizes, self._categories, self._findings = sizes, categories, findings
        # detectron2's reader lets pass what the minival files of 2014 are known to hold.
        self._repeated = WARNING if "minival" in metadata.json_file else FAULT
        self._is_lvis = metadata.evaluator_type == "lvis"
        names = metadata.get("keypoint_names")
        self._points = len(names) if names else 0
        self._seen = set()
        self._looks_like_corners, self._outside = True, 0
        self._has_masks, self._empty_masks = False, []
        self.image_ids = set()

    def check(self, annotation: dict) -> None:
        """Note what is wrong with an annotation."""
        try:
            self._check(annotation)
        except _MALFORMED as error:
            which = annotation.get("id") if isinstance(annotation, dict) else repr(annotation)[:40]
            fix = "give each annotation a bbox: x, y, width, height" if error.args == ("bbox",) else ""
            self._findings.add(FAULT, "malformed annotation", f"annotation {which} ({_reason(error)})", fix)

    def _check(self, annotation: dict) -> None:
        add = self._findings.add
        key, image_id, category = annotation["id"], annotation["image_id"], annotation["category_id"]
        where = f"annotation {key} of image {image_id!r}"  # words and numbers differ
        if key in self._seen:
            add(self._repeated, "annotation id that appears twice", where)
        self._seen.add(key)
        if category not in self._categories:
            add(FAULT, "unknown category id", f"{category} ({where})")
        if image_id not in self._sizes:
            add(FAULT, "annotation of an unknown image", where)
            return
        self.image_ids.add(image_id)
        box = _refuse_strange_numbers(annotation["bbox"])
        if len(box) != 4:
            raise ValueError(f"bbox has {len(box)} numbers, expected x, y, width and height")
        self._check_box(box, self._sizes[image_id], where)
        if self._points and len(annotation.get("keypoints", ())) != 3 * self._points:
            add(FAULT, f"annotation without {self._points} keypoints", where)
        self._check_mask(annotation, image_id, where)

    def _check_box(self, box: list[float], size: tuple[int, int], where: str) -> None:
        x, y, width, height = box
        self._findings.add_box((x, y, x + width, y + height), size, where)
        self._outside += x + width > size[0] + TOLERANCE or y + height > size[1] + TOLERANCE
        self._looks_like_corners &= x < width <= size[0] + TOLERANCE and y < height <= size[1] + TOLERANCE

    def check_all(self) -> None:
        """Note what all of them show: boxes that are in their images as two corners, and as corner and size are
        not; and objects without a mask where others have one. Tools write boxes alone with empty lists."""
        for where in self._empty_masks if self._has_masks or self._is_lvis else ():
            level = FAULT if self._is_lvis else WARNING
            self._findings.add(level, "empty polygon (less than 3 points)", where)
        if self._looks_like_corners and self._outside:
            self._findings.add(
                FAULT,
                "boxes that look like two corners (x0, y0, x1, y1)",
                f"all of them, {self._outside:,} of which are outside their image otherwise",
                "give x, y, width and height",
            )

    def _check_mask(self, annotation: dict, image_id: int, where: str) -> None:
        # Not every set in COCO's format has masks; LVIS has nothing else.
        mask = annotation["segmentation"] if self._is_lvis else annotation.get("segmentation")
        if isinstance(mask, dict):
            height, width = mask["size"]
            if (width, height) != tuple(self._sizes[image_id]):
                self._findings.add(FAULT, "run-length mask of another size than its image", where)
        elif mask is not None:
            for polygon in mask:
                _refuse_strange_numbers(polygon)
            valid = [len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in mask]
            # COCO's reader passes over the bad polygons of an object, and over an object that has only such.
            if not valid or not (all(valid) if self._is_lvis else any(valid)):
                self._empty_masks.append(where)
        self._has_masks |= bool(mask)
