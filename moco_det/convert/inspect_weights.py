"""``tools/inspect_weights.py FILE``: what a weight file is, whether it can be converted, and why not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write
from moco_det.weights.backbone_file import Preprocessing, file_sha256
from moco_det.weights.backbone_tensors import check_backbone, in_channels
from moco_det.weights.sources import (
    agreed_arch,
    agreed_preprocessing,
    locate_backbone,
    preprocessing_notes,
    read_checkpoint,
    weight_file,
)
from moco_det.weights.sources.families import PREPROCESSINGS
from moco_det_cli.parsers.weights import inspect_parser


def inspect_weights(
    path: str,
    encoder: str | None = None,
    family: str | None = None,
    trust_pickle: bool = False,
    prefix: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> dict[str, Any]:
    """The facts about a weight file, as plain values.

    ``problems`` says what stands in the way of a conversion; it is empty for a file that can be converted.

    Raises:
        ValueError: it cannot be read, or is of no known family.
    """
    file = weight_file(path)
    content = read_checkpoint(file, trust_pickle)
    found = locate_backbone(content, encoder, family, prefix, preprocessing)
    facts: dict[str, Any] = {
        "file": str(file),
        "sha256": file_sha256(file),
        "bytes": file.stat().st_size,
        "family": found.family,
        "layout_from": found.layout_from,
        "encoders": list(found.encoders),
        "encoder": found.encoder,
        "tensors": {
            found.renamed.get(name, name): _described(value) for name, value in found.backbone.items()
        },
        "parameters": sum(torch.as_tensor(v).numel() for v in found.backbone.values() if hasattr(v, "shape")),
        "dropped": found.dropped,
        "bookkeeping": found.bookkeeping,
        "notes": [*found.notes, *preprocessing_notes(found, preprocessing)],
        "recorded": _recorded(content, found.bookkeeping),
        "provenance": _provenance(content),
        "problems": [],
    }
    for key, step in (
        ("arch", lambda: agreed_arch(found)),
        ("preprocessing", lambda: agreed_preprocessing(found, preprocessing).to_dict()),
        ("whole", lambda: _is_whole(found.backbone, facts["arch"])),
    ):
        try:
            facts[key] = step() if key != "whole" or facts["arch"] else False
        except ValueError as error:
            facts[key] = None
            facts["problems"].append(str(error))
    return facts


def _is_whole(backbone: Mapping[str, Any], arch: str) -> bool:
    check_backbone(backbone, arch, in_channels(backbone))
    return True


def _described(value: Any) -> str:
    if not hasattr(value, "shape"):
        return type(value).__name__
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} {'x'.join(map(str, value.shape)) or 'scalar'}"


def _recorded(content: Mapping, names: list[str]) -> dict[str, Any]:
    """The plain values beside the tensors (epoch, arch, iteration, …) that fit on a line."""
    values = {name: content[name] for name in names if type(content.get(name)) in (int, float, str)}
    return {
        name: value for name, value in values.items() if len(str(value)) <= 80 and str(value).isprintable()
    }


def _provenance(content: Mapping) -> dict[str, Any]:
    record = content.get("moco_det", {})
    return dict(record.get("provenance", {})) if isinstance(record, Mapping) else {}


def in_words(facts: dict[str, Any], with_tensors: bool, options: str = "") -> str:
    """The table for the terminal.

    Args:
        options: with which the file was read, and a conversion must read it too.
    """
    choice = (
        f", has {' and '.join(facts['encoders'])}, shown: {facts['encoder']}" if facts["encoders"] else ""
    )
    rows = [
        ("file", f"{facts['file']} ({facts['bytes'] / 1e6:.1f} MB)"),
        ("sha256", facts["sha256"]),
        ("family", f"{facts['family']}{choice}; layout from {facts['layout_from']}"),
        (
            "network",
            f"{facts['arch'] or 'unknown'}, {len(facts['tensors'])} tensors, {facts['parameters']:,} numbers",
        ),
    ]
    if facts["preprocessing"]:
        rows.append(("input", ", ".join(f"{key} {value}" for key, value in facts["preprocessing"].items())))
    rows += [("beside", f"{len(names)} {reason}") for reason, names in facts["dropped"].items()]
    if facts["bookkeeping"]:
        rows.append(("beside", f"entries: {', '.join(facts['bookkeeping'])}"))
    rows += [
        ("origin", f"{key}: {value}")
        for key, value in (facts["recorded"] | facts["provenance"]).items()
        if value and key != "config"
    ]
    rows += [("note", note) for note in facts["notes"]]
    if with_tensors:
        rows += [("tensor", f"{name} {what}") for name, what in facts["tensors"].items()]
    rows += [("problem", problem) for problem in facts["problems"]]
    if not facts["problems"]:
        rows.append(("next", _next(facts, options)))
    return "\n".join(f"{label:8} {text}" for label, text in rows)


def _next(facts: dict[str, Any], options: str) -> str:
    if facts["family"] == "backbone" and facts["file"].endswith((".pkl", ".pth")):
        return f"tools/train_net.py --config-file RECIPE --init {facts['file']}"
    return f"tools/convert_to_d2.py {facts['file']} backbone.pkl{options}"


@user_errors
def main(argv: list[str] | None = None) -> None:
    """Entry of ``tools/inspect_weights.py``; exit code 1 for a file that is known and cannot be converted."""
    args = inspect_parser().parse_args(argv)
    facts = inspect_weights(
        args.file,
        args.encoder,
        args.family,
        args.trust_pickle,
        args.prefix,
        PREPROCESSINGS.get(args.preprocessing),
    )
    if args.json:
        with atomic_write(Path(args.json)) as temporary:
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    options = "".join(
        f" --{k} {v}" for k in ("encoder", "family", "prefix", "preprocessing") if (v := getattr(args, k))
    )
    print(in_words(facts, args.tensors, options + " --trust-pickle" * args.trust_pickle))
    if facts["problems"]:
        raise SystemExit(1)
