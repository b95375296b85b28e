"""The images of a data set: headers of all that a budget of seconds allows, and some of them decoded."""

import contextlib
import os
import random
import time
from collections.abc import Sequence

from PIL import UnidentifiedImageError

from moco_det.data.decoding import UnreadableImage, decode_rgb, open_image, orientation
from moco_det.data.image_format import RGB, ImageFormat, check_images
from moco_det.finetune.check_findings import FAULT, WARNING, Findings
from moco_det.finetune.record_mapper import size_of_labels
from moco_det.utils.progress import progress

# Seconds for the headers of a data set's images. Beyond it stand the images that a shuffle puts last.
SECONDS = 20.0
# Images that are decoded whole, besides those that do not show the end of their format.
DECODED = 32
UNREADABLE = "image that cannot be read"
# What a whole file ends with, in its last bytes (some programs add a few), by Pillow's name of the format. Other
# formats have no such end, and their files are all decoded.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096


def look_at_images(
    records: Sequence[dict], findings: Findings, seconds: float = SECONDS, image_format: ImageFormat = RGB
) -> None:
    """Note images that cannot be read, are of another size than their labels say, or are read in a special way."""
    try:
        check_images([record["file_name"] for record in records], image_format)
    except ValueError as error:
        findings.add(FAULT, "images that INPUT.CHANNELS and INPUT.RANGE do not fit", str(error))
        return
    order = list(range(len(records)))
    random.Random(0).shuffle(order)
    end, looked = time.monotonic() + seconds, 0
    for place, number in enumerate(progress(order, "checking images", len(order))):
        if time.monotonic() > end:
            break
        looked += 1
        _look(records[number], findings, place < DECODED, image_format)
    if looked < len(order):
        findings.add(
            WARNING,
            "part of the images only was looked at",
            f"{looked:,} of {len(order):,} in {seconds:g} s",
        )


def _look(record: dict, findings: Findings, decode: bool, image_format: ImageFormat) -> None:
    path = record["file_name"]
    if not os.path.lexists(path):  # a broken link is there, and cannot be read
        return  # noted as missing where the set's files are listed
    name = os.path.basename(path)
    try:
        size, mode, turned = _open(path, decode, image_format)
    except Exception as error:  # as in decode_rgb
        reason = error.reason if isinstance(error, UnreadableImage) else " ".join(str(error).split())
        findings.add(FAULT, UNREADABLE, f"{name} ({reason})", "fix or remove it")
        return
    _compare_sizes(record, name, size, turned, findings)
    if mode.startswith("I"):
        findings.add(WARNING, "image of 16 bits, read as in pre-training (0 to 65535 becomes 0 to 255)", name)


def _open(path: str, decode: bool, image_format: ImageFormat) -> tuple[tuple[int, int], str, int]:
    """Width and height as stored, Pillow's mode ("": not read by Pillow alone), and the EXIF orientation."""
    if image_format.is_plain:
        with contextlib.suppress(UnidentifiedImageError):  # what else there is, ImageFormat.decode reads too
            with open_image(path) as image:
                size, mode, kind, turned = image.size, image.mode, image.format, orientation(image)
                decode = decode or not _ends_whole(path, kind, start=image.fp.tell())
            if decode:
                decode_rgb(path)
            if mode == "F":
                raise UnreadableImage(path, "floating-point pixels have no stated range")
            return size, mode, turned
    levels, turned = image_format.stored(path)  # there is no header that tells all of this
    return levels.shape[:0:-1], "", turned


def _compare_sizes(record: dict, name: str, size: tuple[int, int], turned: int, findings: Findings) -> None:
    upright = size[::-1] if turned in (5, 6, 7, 8) else size
    expected = size_of_labels(record, upright)
    if expected not in (upright, size):
        findings.add(
            FAULT,
            "image of another size than its labels say",
            f"{name} has {upright[0]} x {upright[1]} pixels, its labels say {expected[0]} x {expected[1]}",
            "give the images that were labeled",
        )
    elif turned != 1 and expected != upright:
        findings.add(
            WARNING,
            "image that EXIF turns and whose labels do not: read as stored, unlike in pre-training",
            name,
        )
    elif turned != 1:
        findings.add(WARNING, "image that EXIF turns: labels are taken to be of the upright one", name)


def _ends_whole(path: str, kind: str, start: int) -> bool:
    """Whether a file has the end of its format, looked for in its last bytes.

    Args:
        start: where its header ends, which may hold a thumbnail with an end of its own.
    """
    if kind not in _ENDS:
        return False
    with open(path, "rb") as file:
        file.seek(max(start, os.path.getsize(path) - _TAIL))
        return _ENDS[kind] in file.read()
