"""What plans and dry runs print: labels and texts in two columns, and the command that starts the run."""

import sys
import textwrap
from collections.abc import Sequence

from detectron2.config import CfgNode

from moco_det.config import get_cfg, known_keys, merge_config, value_of
from moco_det.config.rules import ROWS
from moco_det.engine.record import command_line

WIDTH, LABEL = 110, 15

PlanRow = tuple[str, str]  # label, text


def show(lines: Sequence[PlanRow]) -> None:
    """Print labels and texts in two columns."""
    for label, text in lines:
        print(fill(f"  {label:<{LABEL}}{text}", LABEL + 2), flush=True)


def fill(text: str, indent: int) -> str:
    """Text in lines; neither paths nor options are torn apart."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def count(number: int, noun: str, nouns: str = "") -> str:
    """``"1 step"``, ``"2,000 steps"``; ``nouns`` where they are no ``noun`` and s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def show_start(flags: Sequence[str]) -> None:
    """Print this process's command without what asked for a plan.

    Args:
        flags: those that did; argparse takes beginnings of them too.
    """
    words = [word for word in sys.argv if not any(len(word) > 2 and flag.startswith(word) for flag in flags)]
    print("Start it with\n  " + command_line(words))


def changed_settings(cfg: CfgNode, recipe: str, add_configs: Sequence = ()) -> PlanRow:
    """What a config has otherwise than its recipe; what is shown in rows of its own is left out."""
    base = get_cfg(add_configs)
    merge_config(base, recipe, [])
    changed = [
        f"{key} {value_of(cfg, key)!r} (recipe: {value_of(base, key)!r})"
        for key in known_keys(cfg)
        if not (key in ROWS and ROWS[key].shown) and value_of(cfg, key) != value_of(base, key)
    ]
    return "settings", "; ".join(changed) or "the recipe's own"
