"""Says, before hours are spent, which data sets are complete, what is missing, where to get it, what is faulty.

Exit code 0: all that was asked for is complete (warnings are allowed, since official data sets have some). 1:
something is missing or faulty, or could not be checked. 2: the command itself is wrong.
"""

import argparse
import difflib
import json
import os
import sys
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from moco_det.cli import user_errors
from moco_det.config import get_cfg
from moco_det.files import appears_whole, datasets_root
from moco_det.finetune.check_coco import check_coco
from moco_det.finetune.check_findings import FAULT, MISSING, PATH, WARNING, Files, Findings
from moco_det.finetune.check_voc import check_cityscapes, check_voc, check_voc_sem_seg
from moco_det.finetune.classes import complete_metadata
from moco_det.finetune.dataset_sources import OFFICIAL_COUNTS, how_to_get
from moco_det.finetune.datasets import needed_files
from moco_det.finetune.lvis import check_reader
from moco_det.own_datasets import OPTIONS, add_dataset_options, settle_datasets
from moco_det.tasks import TASKS, get_task

ALL = "all"
DENSEPOSE = "moco_densepose_"
# Of each kind of data set (metadata evaluator_type), what is looked at when its files and folders are there.
_CHECKS = {
    "pascal_voc": check_voc,
    "coco": check_coco,
    "lvis": check_coco,
    "sem_seg": check_voc_sem_seg,
    "cityscapes_sem_seg": check_cityscapes,
    "cityscapes_instance": check_cityscapes,
}


def check_all(names: Sequence[str]) -> list[Findings]:
    """Check data sets by name; a name that appears again is left out."""
    names, files, found = list(dict.fromkeys(names)), Files(), {}
    # Those that share a label file follow one another, so that it is read once.
    for name in sorted(names, key=lambda name: (_json_file(name), name)):
        found[name] = Findings(name)
        _check(found[name], files)
    return [found[name] for name in names]


def _json_file(name: str) -> str:
    return MetadataCatalog.get(name).get("json_file", "") if name in DatasetCatalog else ""


def _check(findings: Findings, files: Files) -> None:
    name = findings.name
    findings.unknown = _why_unknown(name)
    if findings.unknown:
        return
    metadata = MetadataCatalog.get(name)
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
        _CHECKS[kind](metadata, files, findings)
    except (
        OSError,
        UnicodeDecodeError,
    ) as error:  # a list that cannot be read, a folder that may not be listed
        findings.add(FAULT, "file or folder that cannot be read", str(error))
    official, source = OFFICIAL_COUNTS.get(name, (findings.images, ""))
    if findings.images not in (None, official):
        findings.add(
            WARNING,
            "number of images unlike the official one",
            f"{findings.images:,}, not {official:,} ({source})",
        )


def _why_unknown(name: str) -> str:
    """Why a data set cannot be checked; empty where it can."""
    if name.startswith(DENSEPOSE):
        return "comes with projects/DensePose, whose train_net.py checks it"
    if name not in DatasetCatalog:
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=1, cutoff=0)
        return f"not registered; the nearest registered one is {near[0]!r}"
    try:
        check_reader(name)
    except ValueError as error:
        return str(error)
    complete_metadata(name)
    metadata = MetadataCatalog.get(name)
    kind = metadata.get("evaluator_type")
    if kind not in _CHECKS or (kind == "sem_seg" and metadata.get("dirname") is None):
        return f"its layout is none of VOC, COCO, LVIS and Cityscapes (evaluator_type {kind!r})"
    return ""


def table(found: Sequence[Findings]) -> str:
    """A line for each data set: its state, its number of images, and what is missing."""
    rows = [("data set", "state", "images", "what is missing or bad")]
    for findings in found:
        images = "" if findings.images is None else f"{findings.images:,}"
        rows.append((findings.name, findings.status, images, _summary(findings)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    )


def _summary(findings: Findings) -> str:
    paths = [path for f in findings.of(MISSING) if f.kind == PATH for path in f.examples]
    parts = [findings.unknown, ", ".join(paths)]
    parts += [f"{f.count:,} x {f.kind}" for f in findings.of(MISSING, FAULT) if f.kind != PATH]
    warnings = sum(f.count for f in findings.of(WARNING))
    parts.append(f"{warnings:,} warning{'s' if warnings > 1 else ''}" if warnings else "")
    return "; ".join(part for part in parts if part)


def details(found: Sequence[Findings]) -> str:
    """Of each data set, what its line in the table does not show: kinds, counts and the first examples."""
    lines = []
    for findings in found:
        kinds = [finding for finding in findings.of(MISSING, FAULT, WARNING) if finding.kind != PATH]
        if kinds:
            lines += ["", findings.name, *(f"  {finding.level:7}  {finding}" for finding in kinds)]
    return "\n".join(lines)


def to_do(found: Sequence[Findings]) -> str:
    """What to fetch or make, each once, and for which data sets."""
    mends = {}
    for findings in found:
        for finding in findings.of(MISSING, FAULT):
            if finding.mend:
                mends.setdefault(finding.mend, {})[findings.name] = None
    return "\n".join(
        ["", "To do:", *(f"- {mend} ({', '.join(mends[mend])})" for mend in mends)] if mends else []
    )


def _as_json(found: Sequence[Findings]) -> dict:
    return {
        "root": os.path.abspath(datasets_root()),
        "datasets": {
            findings.name: {
                "state": findings.status,
                "images": findings.images,
                "unknown": findings.unknown,
                "findings": [vars(finding) for finding in findings.of(MISSING, FAULT, WARNING)],
            }
            for findings in found
        },
    }


def run(args: argparse.Namespace) -> int:
    """Check, print, and write ``--json``; returns the exit code."""
    own = [row[0] for option in OPTIONS for row in getattr(args, option)]
    args.datasets = list(dict.fromkeys([*args.datasets, *own]))
    cfg = get_cfg()
    cfg.DATASETS.TEST = tuple(args.datasets)
    settle_datasets(cfg, args)
    tasks = args.tasks or ([] if args.datasets else [ALL])
    chosen = TASKS if ALL in tasks else [get_task(name) for name in tasks]
    names = [name for task in chosen for name in (*task.train, *task.test)] + args.datasets
    found = check_all(names)
    root = os.environ.get("DETECTRON2_DATASETS")
    print(f"Data sets below {os.path.abspath(datasets_root())} (DETECTRON2_DATASETS={root})\n")
    print(table(found))
    for part in (details(found), to_do(found)):
        if part:
            print(part)
    if args.json:
        with appears_whole(args.json) as path:
            path.write_text(json.dumps(_as_json(found), indent=2))
    # A project's data sets are none of the core's: with "all" they are shown and do not count.
    passed_over = (
        set() if ALL not in tasks else {f.name for f in found if f.unknown and f.name.startswith(DENSEPOSE)}
    )
    counted = [f for f in found if f.name not in passed_over - set(args.datasets)]
    return 0 if all(findings.status == "complete" for findings in counted) else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Says which data sets below $DETECTRON2_DATASETS are complete, and where to get what is not.",
        epilog="exit code: 0 all are complete (with or without warnings), 1 one is not, 2 the command is wrong",
    )
    names = ", ".join(task.name for task in TASKS)
    parser.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME", help=f"all (the default), or of: {names}"
    )
    parser.add_argument(
        "--datasets", nargs="+", default=[], metavar="NAME", help="registered names, e.g. toy_coco_val"
    )
    add_dataset_options(parser)
    parser.add_argument("--json", metavar="FILE", help="also write what was found there, for scripts")
    return parser


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    sys.exit(run(make_parser().parse_args(argv)))
