"""docs/CONFIG.md, the page of all config keys: ``python -m moco_det.config.page`` writes it from the table."""

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from moco_det.config.key import HOST, KINDS, METHOD, Allowed, Key
from moco_det.config.keys import KEYS
from moco_det.config.merge import get_cfg
from moco_det.config.rules import value_of

PAGE = Path("docs/CONFIG.md")
INTRODUCTION = """# Config keys

What moco_det adds to detectron2's config, and the keys of detectron2 that it has rules for. Search this page for a
key or a word. Every other key of detectron2 is read by fine-tuning, as
[detectron2 documents it](https://detectron2.readthedocs.io/en/latest/modules/config.html); pre-training and
classifiers refuse it.

A key that a stage does not read is refused, and so is, on the command line, one that other settings leave without
effect. *method* stands for pre-training by the methods that use the key; keys of the methods in
[projects/](../projects/README.md) stand in their `config.py`. What a change of a key means follows from its kind:

"""


def config_page(rows: Sequence[Key] = KEYS) -> str:
    """The page in Markdown."""
    defaults = get_cfg()
    by_node: dict[str, list[Key]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.name):
        node = re.match(
            r"(MODEL\.(ENCODER|MOCO)|INPUT\.VIEWS|TEST\.KNN|SOLVER\.CLIP_GRADIENTS|\w+)\.", row.name
        )
        by_node[node[1] if node else "The run"].append(row)
    parts = [INTRODUCTION + _kinds()]
    for node in sorted(by_node, key=lambda node: (node != "The run", node)):
        lines = [_entry(row, value_of(defaults, row.name)) for row in by_node[node]]
        parts.append(f"\n## {node}\n\n" + "\n".join(lines))
    return "\n".join(parts) + "\n"


def _kinds() -> str:
    at_resume = {"same": "refused", "named": "accepted, and named in the log", "free": "accepted"}
    lines = [
        "| kind | what it settles | enters the config hash | another value at `--resume` | processes must agree |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {kind.name} | {kind.meaning} | {_yes(kind.in_hash)} | {at_resume[kind.resume]} | "
        f"{_yes(kind.ranks_agree)} |"
        for kind in KINDS
    ]
    return "\n".join(lines) + "\n"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _entry(row: Key, default: object) -> str:
    """A key as an item of a list, with its facts below."""
    of_host = ", detectron2's" if row.default is HOST else ""
    facts = [f"default `{default!r}`{of_host}", f"kind {row.kind.name}"]
    if row.stages:
        facts.append(f"read by {', '.join('method' if s == METHOD else s for s in row.stages)}")
    facts += [f"values: {words}" for words in _values(row)]
    if row.effect:
        facts.append("with " + " and ".join(_condition(condition) for condition in row.effect))
    facts += [f"{stage}: use `{other}`" for stage, other in row.instead.items()]
    if row.source:
        facts.append(f"source: {row.source}")
    if row.was:
        facts.append(f"formerly `{row.was}`")
    return f"- **`{row.name}`**: {row.meaning}  \n  " + "; ".join(facts)


def _values(row: Key) -> list[str]:
    if isinstance(row.allowed, Allowed):
        return [row.allowed.words]
    stages = row.allowed or {}
    return [f"{allowed.words} ({stage})" for stage, allowed in stages.items()]


def _condition(condition) -> str:
    values = " or ".join("empty" if value == "" else str(value) for value in condition.values)
    return f"`{condition.key}` {'not ' if condition.negated else ''}{values}"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page of a checkout."""
    parser = argparse.ArgumentParser(description="Write the page of all config keys from their table.")
    parser.add_argument("--output", type=Path, default=PAGE, help="default: %(default)s")
    parser.parse_args(argv).output.write_text(config_page())


if __name__ == "__main__":
    main()
