"""A look at all that a run will open, before its first step: one code for tools/check_datasets.py and for the run.

What was found stays in a cache (``$MOCO_DET_CACHE``, else ``~/.cache/moco_det``), as long as neither a file of the
data set nor what is looked for changes.
"""

import contextlib
import difflib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from moco_det.data.datasets.downloads import OFFICIAL_COUNTS, how_to_get
from moco_det.data.datasets.lvis import check_reader
from moco_det.data.image_format import ImageFormat
from moco_det.engine.agreement import code_digest
from moco_det.finetune.check_coco import check_coco
from moco_det.finetune.check_findings import FAULT, MISSING, PATH, WARNING, Files, Finding, Findings
from moco_det.finetune.check_voc import check_cityscapes, check_voc, check_voc_sem_seg
from moco_det.finetune.classes import complete_metadata
from moco_det.finetune.datasets import needed_files
from moco_det.finetune.look_images import UNREADABLE, look_at_images
from moco_det.finetune.look_records import Use, as_key, look_at_records, look_at_truth, map_records, use_of
from moco_det.finetune.look_semantic import look_at_labels
from moco_det.utils.files import atomic_write, datasets_root

logger = logging.getLogger(__name__)
DENSEPOSE = "moco_densepose_"
MISSING_IMAGE = "image"
# Of each kind of data set (metadata evaluator_type), what is looked at when its files and folders are there.
_CHECKS = {
    "pascal_voc": check_voc,
    "coco": check_coco,
    "lvis": check_coco,
    "sem_seg": check_voc_sem_seg,
    "cityscapes_sem_seg": check_cityscapes,
    "cityscapes_instance": check_cityscapes,
}


def look_at_set(name: str, use: Use, files: Files) -> Findings:
    """All that is found of a data set, for one use; from the cache where nothing changed."""
    findings = Findings(name)
    findings.unknown = _why_unknown(name)
    if findings.unknown:
        return findings
    metadata = MetadataCatalog.get(name)
    cache = _cache_file(name, metadata, use)
    if cache and findings.restore(cache):
        return findings
    _look(name, metadata, use, files, findings)
    if cache and not findings.absent:
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            cache.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(cache) as path:
                path.write_text(json.dumps(findings.stored()))
    return findings


def _why_unknown(name: str) -> str:
    """Why a data set cannot be checked; empty where it can."""
    if name.startswith(DENSEPOSE):
        return "comes with projects/DensePose, whose train_net.py checks it"
    if name not in DatasetCatalog:
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=1, cutoff=0)
        return f"not registered; closest match: {near[0]!r}; your own need --coco, --register, …"
    try:
        check_reader(name)
    except ValueError as error:
        return str(error)
    complete_metadata(name)
    kind = MetadataCatalog.get(name).get("evaluator_type")
    if kind not in _CHECKS:
        return f"its layout is none of VOC, COCO, LVIS and Cityscapes (evaluator_type {kind!r})"
    return ""


def _look(name: str, metadata: Metadata, use: Use, files: Files, findings: Findings) -> None:
    kind = metadata.evaluator_type
    # What Cityscapes needs of each image is checked below.
    needed = [metadata.image_dir, metadata.gt_dir] if kind.startswith("cityscapes") else needed_files(name)
    absent = [path for path in needed if not os.path.exists(path)]
    for path in absent:
        findings.add(MISSING, PATH, os.path.relpath(path, datasets_root()), how_to_get(name, path))
    if absent:
        findings.absent = len(absent) == len(needed)
        return
    try:
        if _has_files(metadata):
            _CHECKS[kind](metadata, files, findings)
    except (OSError, ValueError) as error:  # a list that cannot be read, a folder that may not be listed
        findings.add(FAULT, "file or folder that cannot be read", str(error))
    official, source = OFFICIAL_COUNTS.get(name, (findings.num_images, ""))
    if findings.num_images not in (None, official):
        findings.add(
            WARNING,
            "number of images unlike the official one",
            f"{findings.num_images:,}, not {official:,} ({source})",
        )
    if not findings.of(FAULT) and not any(f.kind != MISSING_IMAGE for f in findings.of(MISSING)):
        with quiet():
            _look_inside(name, metadata, use, findings)


def _has_files(metadata: Metadata) -> bool:
    """Whether the set has the files of its kind; one that a function of the user's makes may have none."""
    kind = metadata.evaluator_type
    if kind == "coco":
        return metadata.get("json_file") is not None
    return kind != "sem_seg" or metadata.get("dirname") is not None


def _look_inside(name: str, metadata: Metadata, use: Use, findings: Findings) -> None:
    try:
        records = DatasetCatalog.get(name)
    except Exception as error:  # readers assert, look up, convert
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        findings.add(FAULT, "labels that their reader cannot read", reason)
        return
    findings.num_images = len(records)
    if not records:
        findings.add(FAULT, "data set without an image", name)
    _note_similar_classes(metadata, findings)
    if not _has_files(metadata):
        _note_missing(records, findings)
    look_at_records(records, metadata, use, findings)
    if use.train and not findings.of(FAULT):
        map_records(records, use, findings)
    if use.train is False and metadata.evaluator_type == "coco" and metadata.get("json_file"):
        look_at_truth(metadata, use, findings)
    look_at_images(records, findings, image_format=ImageFormat(use.channels, use.range))
    if metadata.evaluator_type.endswith("sem_seg") and records and "sem_seg_file_name" in records[0]:
        look_at_labels(records, metadata, use.train is not False, findings)


def _note_similar_classes(metadata: Metadata, findings: Findings) -> None:
    for listed in ("thing_classes", "stuff_classes"):
        groups: dict[str, list[str]] = {}
        for name in dict.fromkeys(map(str, metadata.get(listed) or ())):
            groups.setdefault(name.strip().casefold(), []).append(name)
        for names in groups.values():
            if len(names) > 1:
                findings.add(
                    WARNING, "classes whose names differ in case or blanks alone", " and ".join(names)
                )


def _note_missing(records: Sequence[dict], findings: Findings) -> None:
    for record in records:
        for key, kind in (("file_name", MISSING_IMAGE), ("sem_seg_file_name", "label image")):
            if key in record and not os.path.lexists(record[key]):
                findings.add(MISSING, kind, record[key])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged up to warnings: the run does all this again, with a log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


# ---- the cache -----------------------------------------------------------------------------------------


def _cache_file(name: str, metadata: Metadata, use: Use) -> Path | None:
    """The file that keeps the findings of a data set as it is now; None where no files tell its state."""
    paths = needed_files(name)
    if not paths:
        return None
    facts = hashlib.sha256()
    classes = [metadata.get(listed) for listed in ("thing_classes", "stuff_classes")]
    words = (name, as_key(use), code_digest(), repr(classes))
    for line in (*words, *(line for path in paths for line in _state(os.path.abspath(path)))):
        facts.update(f"{line}\n".encode(errors="surrogateescape"))
    folder = os.environ.get("MOCO_DET_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "moco_det"
    )
    return Path(folder, "looked_at", f"{facts.hexdigest()[:32]}.json")


def _state(path: str) -> Iterator[str]:
    """Name, size and time of a file, or of all files below a folder."""
    if not os.path.isdir(path):
        if os.path.exists(path):
            status = os.stat(path)
            yield f"{path} {status.st_size} {status.st_mtime_ns}"
        return
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                yield from _state(entry.path)
            elif entry.is_file():
                status = entry.stat()
                yield f"{entry.path} {status.st_size} {status.st_mtime_ns}"


# ---- the run -------------------------------------------------------------------------------------------


def look_before_run(cfg: CfgNode, eval_only: bool) -> list[tuple[str, str]]:
    """Look at the data sets of a run; those of a project are its own matter.

    Returns:
        warnings: the data set, and what was found.

    Raises:
        ValueError: what the run would stop at, or measure wrongly.
    """
    files, warnings = Files(), []
    parts = () if eval_only else ((name, True) for name in dict.fromkeys(cfg.DATASETS.TRAIN))
    for name, train in (*parts, *((name, False) for name in dict.fromkeys(cfg.DATASETS.TEST))):
        findings = look_at_set(name, use_of(cfg, train), files)
        if findings.unknown:
            continue
        bad = findings.of(MISSING, FAULT)
        stops = [finding for finding in bad if not _is_accepted(finding, findings, cfg, train)]
        if stops:
            raise ValueError(_sentence(name, stops, train, cfg))
        warnings += [(name, _with_fix(finding)) for finding in findings.of(MISSING, FAULT, WARNING)]
    return warnings


def _is_accepted(finding: Finding, findings: Findings, cfg: CfgNode, train: bool) -> bool:
    """Whether a training set may have so many images that are not there or cannot be read."""
    of_images = [f for f in findings.of(MISSING, FAULT) if f.kind in (MISSING_IMAGE, UNREADABLE)]
    fraction = sum(f.count for f in of_images) / max(1, findings.num_images or 0)
    return train and finding in of_images and fraction <= cfg.DATASETS.MAX_UNREADABLE


def _with_fix(finding: Finding) -> str:
    return f"{finding} ({finding.fix})" if finding.fix else f"{finding}"


def _sentence(name: str, stops: Sequence[Finding], train: bool, cfg: CfgNode) -> str:
    parts = list(map(_with_fix, stops))
    if train and any(finding.kind in (MISSING_IMAGE, UNREADABLE) for finding in stops):
        parts.append(
            f"a training set may lack the fraction DATASETS.MAX_UNREADABLE {cfg.DATASETS.MAX_UNREADABLE}"
        )
    use = "trained on" if train else "tested on"
    return (
        f"data set {name!r} cannot be {use}: {'; '.join(parts)}. tools/check_datasets.py --datasets {name} (with "
        "the same --coco, --voc, --semantic or --register) lists all"
    )
