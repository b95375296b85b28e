"""What tools/check_datasets.py found of a data set, and the files that it looked at."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

# How bad a finding is. MISSING: a file is not there. FAULT: the reader, or the metric, would stop or be wrong.
# WARNING: they pass over it, and official data sets hold some (COCO's train2017 has boxes without height:
# https://github.com/cocodataset/cocoapi/issues/355).
MISSING, FAULT, WARNING = "missing", "fault", "warning"
# The kind of what is missing as a whole; its examples are paths.
PATH = "path"
NUM_EXAMPLES = 3
# A box may stick out of its image by this much, in pixels: files hold rounded numbers.
TOLERANCE = 1.0


@dataclass
class Finding:
    """One kind of finding.

    Attributes:
        level: MISSING, FAULT or WARNING.
        kind: what it is, e.g. ``"box of zero size"``.
        fix: what to do about it; may be empty.
        count: how often it was found.
        examples: the first few.
    """

    level: str
    kind: str
    fix: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rest = ", …" if self.count > len(self.examples) else ""
        return f"{self.count:,} x {self.kind}: {', '.join(self.examples)}{rest}"


class Findings:
    """All that was found of one data set.

    Attributes:
        num_images: how many it has; None where that could not be read.
        unknown: why it could not be checked at all; empty where it could.
        absent: nothing of it is there.
    """

    def __init__(self, name: str):
        self.name = name
        self.num_images: int | None = None
        self.unknown = ""
        self.absent = False
        self._found: dict[tuple[str, str, str], Finding] = {}

    def add(self, level: str, kind: str, example: str, fix: str = "") -> None:
        """Count a finding; those of the same level, kind and fix are one."""
        finding = self._found.setdefault((level, kind, fix), Finding(level, kind, fix))
        finding.count += 1
        if len(finding.examples) < NUM_EXAMPLES:
            finding.examples.append(example)

    def add_box(
        self, box: tuple[float, float, float, float], size: tuple[float, float], example: str
    ) -> None:
        """Note a box ``(x0, y0, x1, y1)`` that is empty or not in an image of ``(width, height)``."""
        x0, y0, x1, y1 = box
        if x1 < x0 or y1 < y0:
            self.add(FAULT, "box whose corners are swapped (of negative size)", example)
        elif not (x1 > x0 and y1 > y0):
            self.add(WARNING, "box of zero size", example)
        elif min(x0, y0) < -TOLERANCE or x1 > size[0] + TOLERANCE or y1 > size[1] + TOLERANCE:
            self.add(WARNING, "box outside its image", example)

    def stored(self) -> dict:
        """The findings as plain values."""
        return {"images": self.num_images, "found": [vars(finding) for finding in self._found.values()]}

    def restore(self, path: Path) -> bool:
        """Take the findings that were stored as JSON in a file; False where there is none, or a broken one."""
        try:
            content = json.loads(path.read_text())
            found = [Finding(**finding) for finding in content["found"]]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.num_images = content["images"]
        self._found = {(finding.level, finding.kind, finding.fix): finding for finding in found}
        return True

    def of(self, *levels: str) -> list[Finding]:
        """The findings of some levels."""
        return [finding for finding in self._found.values() if finding.level in levels]

    @property
    def status(self) -> str:
        """``complete``, ``missing``, ``incomplete`` (of its files), ``faulty`` (its labels) or ``unknown``."""
        if self.unknown:
            return "unknown"
        if self.absent:
            return "missing"
        if self.of(MISSING):
            return "incomplete"
        return "faulty" if self.of(FAULT) else "complete"


class Files:
    """Each folder is listed once, and a label file that several data sets share is read once.

    Only the last label file is kept: COCO's and LVIS's take gigabytes of memory.
    """

    def __init__(self):
        self._folders: dict[str, frozenset[str]] = {}
        self._last: tuple[str, object] = ("", None)

    def names(self, folder: str) -> frozenset[str]:
        """What a folder holds; nothing where there is none."""
        if folder not in self._folders:
            try:
                self._folders[folder] = frozenset(os.listdir(folder))
            except (FileNotFoundError, NotADirectoryError):
                self._folders[folder] = frozenset()
        return self._folders[folder]

    def has(self, path: str) -> bool:
        """Whether a file is there, by the listing of its folder."""
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def json(self, path: str) -> object:
        """The content of a JSON file.

        Raises:
            ValueError, OSError: it cannot be read.
        """
        if self._last[0] != path:
            self._last = ("", None)  # before the next is read
            with open(path, encoding="utf-8") as file:
                self._last = (path, json.load(file))
        return self._last[1]
