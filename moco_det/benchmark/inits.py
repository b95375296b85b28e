"""How the backbones of a benchmark start: what ``--inits`` names, and the overlays that it needs."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moco_det.config.overlays import PREPROCESSING_KEYS, overlay_text
from moco_det.model_zoo import list_inits
from moco_det.weights.backbone_file import (
    TORCHVISION_PREPROCESSING,
    Preprocessing,
    file_sha256,
    read_backbone,
)

# In the benchmark's folder, where overlays of inits are written; and their first line.
INITS = "inits"
TITLE = "Init overlay written by tools/run_benchmark.py"


@dataclass(frozen=True)
class Start:
    """A way for a backbone to start.

    Attributes:
        name: what tables call it.
        file: its weights; None for those that need none or that detectron2 downloads.
        depth: of the ResNet in the file; None without a file.
        sha256: the file's.
        preprocessing: what the weights want; None without a file.
    """

    name: str
    file: Path | None = None
    depth: int | None = None
    sha256: str = ""
    preprocessing: Preprocessing | None = None

    def words(self, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The flags and the KEY VALUE pairs that start a run so, with overlays in ``folder``."""
        if self.file is None:
            return ("--init", self.name), ()
        if not self.needs_overlay:
            return ("--init", "moco"), ("MODEL.WEIGHTS", str(self.file))
        return ("--init", str(self.overlay(folder))), ()

    @property
    def needs_overlay(self) -> bool:
        """Whether no overlay of configs/init says what its file wants."""
        return bool(self.file) and (self.name, self.preprocessing) != ("moco", TORCHVISION_PREPROCESSING)

    def overlay(self, folder: Path) -> Path:
        return folder / f"resnet{self.depth}" / f"{self.name}.yaml"


def read_starts(words: Sequence[str]) -> list[Start]:
    """What ``--inits`` names: ``random``, ``supervised_torchvision``, ``moco=FILE``, ``mine=R18.pkl,R50.pkl`` …

    Raises:
        ValueError: an unknown name without a file, a name twice, or a file that convert did not write.
    """
    starts = []
    for word in words:
        name, given, files = word.partition("=")
        if not re.fullmatch(r"[\w.-]+", name) or name in {start.name for start in starts}:
            raise ValueError(
                f"--inits: {word!r}; expected different names of letters, digits, '-', '_' and '.', each alone or "
                "with =FILE"
            )
        if not given and (name == "moco" or name not in list_inits()):
            known = ", ".join(known for known in list_inits() if known != "moco")
            raise ValueError(
                f"--inits: {name!r} needs a weight file: {name}=backbone.pkl; without one there are: {known}"
            )
        starts += [_read_start(name, Path(file)) for file in files.split(",")] if given else [Start(name)]
    return starts


def _read_start(name: str, file: Path) -> Start:
    if not file.is_file():
        raise ValueError(f"--inits: {name}={file}: there is no such file (looked in {os.getcwd()!r})")
    found = read_backbone(file)
    depth = re.fullmatch(r"\D*(\d+)\D*", str(found.provenance.get("arch", "")))
    if found.preprocessing is None or depth is None:
        raise ValueError(
            f"--inits: {file} does not say what it is; write it with tools/convert_to_d2.py, which takes "
            "checkpoints of many kinds"
        )
    return Start(name, file.resolve(), int(depth[1]), file_sha256(file), found.preprocessing)


def write_overlays(starts: Sequence[Start], folder: Path) -> None:
    """Write the overlays of the inits that need one."""
    for start in starts:
        if start.needs_overlay:
            path, record = start.overlay(folder), start.preprocessing.to_dict()
            values = {key: record[field] for field, key in PREPROCESSING_KEYS.items()}
            weights = {"MODEL.WEIGHTS": os.path.relpath(start.file, path.parent)}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(overlay_text(TITLE, (), weights | values), encoding="utf-8")
