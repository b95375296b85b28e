"""``tools/benchmark_speed.py``: measure parts of the work next to plain references, alternating in one run."""

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from moco_det.data.image_files import find_images
from moco_det.engine.record import command_line, running_commit
from moco_det.report.document import terminal_table
from moco_det.report.speed_tables import TABLES, kept_speed
from moco_det.speed.busy import measure_busy
from moco_det.speed.exchange import measure_shuffle
from moco_det.speed.growth import Cost, measure_growth
from moco_det.speed.images import measure_augment, measure_loader, write_photographs
from moco_det.speed.loop import measure_loop
from moco_det.speed.model import measure_loss, measure_momentum, measure_step
from moco_det.speed.options import Options, cpu_options, smoke_options
from moco_det.speed.transfer import measure_eval, measure_finetune
from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write
from moco_det.utils.machine import describe_machine
from moco_det_cli.parsers.choices import SPEED_JSON as JSON
from moco_det_cli.parsers.choices import SPEED_MARKDOWN as MARKDOWN
from moco_det_cli.parsers.studies import speed_parser

PARTS = {
    "loader": measure_loader,
    "augment": measure_augment,
    "momentum": measure_momentum,
    "loss": measure_loss,
    "step": measure_step,
    "loop": measure_loop,
    "shuffle": measure_shuffle,
    "finetune": measure_finetune,
    "eval": measure_eval,
    "busy": measure_busy,
    "growth": measure_growth,
}


def settle_options(args: argparse.Namespace, paths: Sequence[str]) -> Options:
    """Sizes from the arguments.

    Raises:
        ValueError: there is no GPU, or a number is too small.
    """
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch sees no CUDA GPU; give --device cpu")
    changes = {"paths": tuple(paths)}
    for name in ("batch", "rounds", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}; expected 1 or more")
        if value is not None and name != "threads":
            changes[name] = value
    if args.smoke:
        return smoke_options(device, **changes)
    return Options(device, **changes) if device == "cuda" else cpu_options(**changes)


def run(args: argparse.Namespace) -> dict:
    """Measure and print.

    Returns:
        the record, as it stands in speed.json.
    """
    with tempfile.TemporaryDirectory() as made_up:
        paths = find_images(args.images) if args.images else write_photographs(Path(made_up))
        options = settle_options(args, paths)
        if args.threads:
            torch.set_num_threads(args.threads)
        for record in _measure(list(PARTS) if "all" in args.part else args.part, options):
            if args.output:
                _write(record, args.output)
    return record


def _write(record: dict, folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, text in ((JSON, json.dumps(record, indent=1)), (MARKDOWN, kept_speed(record))):
        with atomic_write(os.path.join(folder, name)) as temporary:
            temporary.write_text(text + "\n")


def _measure(parts: Sequence[str], options: Options) -> Iterator[dict]:
    """The record after each part, so that one that fails, or is stopped, costs none before it."""
    record = {
        "command": command_line(),
        "commit": running_commit(),
        "machine": describe_machine(options.device) | {"threads": torch.get_num_threads()},
        "options": {name: v for name, v in dataclasses.asdict(options).items() if name != "paths"},
        "measurements": [],
        "growth": [],
    }
    for part in parts:
        print(f"{part} …", flush=True)
        rows = list(PARTS[part](options))
        found = {"measurements": [], "growth": []}
        for row in rows:
            kind = "growth" if isinstance(row, Cost) else "measurements"
            met = {} if isinstance(row, Cost) else {"met": row.met}
            found[kind].append(dataclasses.asdict(row) | met)
        for make in TABLES:
            if (table := make(found)).rows:
                print(terminal_table(table), flush=True)
        for kind, measured in found.items():
            record[kind] += measured
        yield record | {"finished": datetime.now(timezone.utc).isoformat(timespec="seconds")}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """``tools/benchmark_speed.py``."""
    run(speed_parser().parse_args(argv))
