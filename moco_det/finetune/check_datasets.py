"""Says, before hours are spent, which data sets are complete, what is missing, where to get it, what is faulty.

Exit code 0: all that was asked for is complete (warnings are allowed, since official data sets have some). 1:
something is missing or faulty, or could not be checked. 2: the command itself is wrong.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from moco_det.config import get_cfg, merge_config
from moco_det.data.datasets.own import OPTIONS, settle_datasets
from moco_det.finetune.check_findings import FAULT, MISSING, PATH, WARNING, Files, Findings
from moco_det.finetune.classes import check_classes, count_classes
from moco_det.finetune.leaks import report_leaks
from moco_det.finetune.look import DENSEPOSE, look_at_set
from moco_det.finetune.look_records import Use, use_of
from moco_det.model_zoo import get_config_file
from moco_det.model_zoo.tasks import TASKS, get_task
from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write, datasets_root
from moco_det_cli.parsers.data import check_datasets_parser

ALL = "all"


def check_all(names: Sequence[str], cfg: CfgNode | None = None) -> list[Findings]:
    """Check data sets by name; a name that appears again is left out.

    Args:
        cfg: of the run that they are for; without one, for any use.
    """
    names, files, found = list(dict.fromkeys(names)), Files(), {}
    # Those that share a label file follow one another, so that it is read once.
    for name in sorted(names, key=lambda name: (_json_file(name), name)):
        train = cfg is None or name in cfg.DATASETS.TRAIN
        found[name] = look_at_set(name, use_of(cfg, train) if cfg else Use(), files)
    return [found[name] for name in names]


def _json_file(name: str) -> str:
    return MetadataCatalog.get(name).get("json_file", "") if name in DatasetCatalog else ""


def table(found: Sequence[Findings]) -> str:
    """A line for each data set: its state, its number of images, and what is missing."""
    header = ("data set", "state", "images", "what is missing or bad")
    rows = [
        (each.name, each.status, "" if each.num_images is None else f"{each.num_images:,}", _summary(each))
        for each in found
    ]
    sides = ("left", "left", "right", "left")
    return tabulate(rows, header, "plain", colalign=sides, disable_numparse=True)


def _summary(findings: Findings) -> str:
    paths = [path for f in findings.of(MISSING) if f.kind == PATH for path in f.examples]
    parts = [findings.unknown, ", ".join(paths)]
    parts += [f"{f.count:,} x {f.kind}" for f in findings.of(MISSING, FAULT) if f.kind != PATH]
    warnings = sum(f.count for f in findings.of(WARNING))
    parts.append(f"{warnings:,} warning{'s' if warnings > 1 else ''}" if warnings else "")
    return "; ".join(part for part in parts if part)


def details(found: Sequence[Findings]) -> str:
    """What the table does not show of each data set: kinds, counts and the first examples."""
    lines = []
    for findings in found:
        kinds = [finding for finding in findings.of(MISSING, FAULT, WARNING) if finding.kind != PATH]
        if kinds:
            lines += ["", findings.name, *(f"  {finding.level:7}  {finding}" for finding in kinds)]
    return "\n".join(lines)


def to_do(found: Sequence[Findings]) -> str:
    """What to fetch or make, each once, and for which data sets."""
    fixes = {}
    for findings in found:
        for finding in findings.of(MISSING, FAULT):
            if finding.fix:
                fixes.setdefault(finding.fix, {})[findings.name] = None
    return "\n".join(
        ["", "To do:", *(f"- {fix} ({', '.join(fixes[fix])})" for fix in fixes)] if fixes else []
    )


def _as_json(found: Sequence[Findings]) -> dict:
    return {
        "root": os.path.abspath(datasets_root()),
        "datasets": {
            findings.name: {
                "state": findings.status,
                "images": findings.num_images,
                "unknown": findings.unknown,
                "findings": [vars(finding) for finding in findings.of(MISSING, FAULT, WARNING)],
            }
            for findings in found
        },
    }


def run(args: argparse.Namespace) -> int:
    """Check, print, and write ``--json``; returns the exit code."""
    cfg = _settle(args)
    if args.leaks_in and not args.datasets:
        raise ValueError(
            "--leaks-in compares with the images of --datasets NAME; name those that are tested on"
        )
    tasks = args.tasks or ([] if args.datasets else [ALL])
    chosen = TASKS if ALL in tasks else [get_task(name) for name in tasks]
    names = [name for task in chosen for name in (*task.train, *task.test)] + args.datasets
    found = check_all(names, cfg)
    root = os.environ.get("DETECTRON2_DATASETS")
    print(f"Data sets below {os.path.abspath(datasets_root())} (DETECTRON2_DATASETS={root})\n")
    print(table(found))
    for part in (details(found), to_do(found)):
        if part:
            print(part)
    if args.json:
        with atomic_write(args.json) as path:
            path.write_text(json.dumps(_as_json(found), indent=2))
    leaks = report_leaks(args.datasets, args.leaks_in, args.leaks_list) if args.leaks_in else 0
    # A project's data sets are none of the core's: with "all" they are shown and do not count.
    passed_over = (
        set() if ALL not in tasks else {f.name for f in found if f.unknown and f.name.startswith(DENSEPOSE)}
    )
    counted = [f for f in found if f.name not in passed_over - set(args.datasets)]
    return 0 if not leaks and all(findings.status == "complete" for findings in counted) else 1


def _settle(args: argparse.Namespace) -> CfgNode | None:
    """Register the user's own data sets and add them to ``args.datasets``; gives a run's config."""
    cfg = get_cfg()
    own = [row[0] for option in OPTIONS for row in getattr(args, option)]
    if not args.config_file:
        args.datasets = list(dict.fromkeys([*args.datasets, *own]))
        cfg.DATASETS.TEST = tuple(args.datasets)
        settle_datasets(cfg, args)
        return None
    file = get_config_file(args.config_file)
    merge_config(cfg, file, args.opts)
    settle_datasets(cfg, args)
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    args.datasets = list(dict.fromkeys([*args.datasets, *names]))
    count_classes(cfg, names, file, args.opts)
    if all(name in DatasetCatalog for name in names):
        check_classes(cfg, names)
    return cfg


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    sys.exit(run(check_datasets_parser().parse_args(argv)))
