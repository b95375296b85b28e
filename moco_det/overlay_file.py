"""Overlays that the tools write: small YAML files that are merged over a recipe, below the KEY VALUE pairs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

# Fields of the preprocessing record and the config keys that must agree with them. They move together: none of
# them shows in the shapes of the weights, and each alone costs AP in silence.
PREPROCESSING_KEYS = {
    "format": "INPUT.FORMAT",
    "pixel_mean": "MODEL.PIXEL_MEAN",
    "pixel_std": "MODEL.PIXEL_STD",
    "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
}
# What the moco overlay writes where the user must name a file.
NOT_GIVEN = "GIVE-MODEL.WEIGHTS"


def overlay_text(title: str, notes: Sequence[str], values: Mapping[str, Any]) -> str:
    """The content of an overlay file.

    Args:
        title: the first comment line, by which the tool that wrote the file knows it again.
        notes: further comment lines.
        values: full key names and plain values.
    """
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, name = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    comments = "".join(f"# {line}\n" for line in (title, *notes))
    return comments + yaml.safe_dump(nested, sort_keys=False, default_flow_style=None, width=1000)


def check_replaceable(path: str | os.PathLike, title: str) -> None:
    """Refuse to write an overlay over a file that is not one of the same title.

    Raises:
        ValueError: such a file is there.
    """
    if not Path(path).exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline().rstrip("\n")
    if first != f"# {title}":
        raise ValueError(
            f"{str(path)!r} exists and does not begin with {f'# {title}'!r}, so it may be yours and is not "
            "replaced; give the output another name, or move that file"
        )


def resolve_weights(weights: str, overlay: str | os.PathLike) -> str:
    """What MODEL.WEIGHTS of an overlay means: a relative path counts from the overlay's own folder.

    So an overlay and its weight file can be moved together.
    """
    if weights in ("", NOT_GIVEN) or "://" in weights:
        return weights
    return os.path.join(os.path.dirname(overlay), weights)
