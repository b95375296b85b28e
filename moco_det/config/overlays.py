"""Overlays that the tools write: small YAML files that are merged over a recipe, below the KEY VALUE pairs."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from moco_det.config.architectures import parse_arch

# Fields of the preprocessing record and the config keys that must agree with them. They move together: none of
# them shows in the shapes of the weights, and each alone costs AP in silence.
PREPROCESSING_KEYS = {
    "format": "INPUT.FORMAT",
    "pixel_mean": "MODEL.PIXEL_MEAN",
    "pixel_std": "MODEL.PIXEL_STD",
    "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
}
# Those of other than plain 8-bit RGB images, which an overlay for such leaves out.
CHANNEL_KEYS = {"channels": "INPUT.CHANNELS", "range": "INPUT.RANGE"}
# Config keys of a ResNet's depth and widths, and what they are in the architecture's name.
ARCHITECTURE_KEYS = {
    "MODEL.RESNETS.DEPTH": "depth",
    "MODEL.RESNETS.NUM_GROUPS": "groups",
    "MODEL.RESNETS.WIDTH_PER_GROUP": "width_per_group",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "stem_channels",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "res2_channels",
}
# What the moco overlay writes where the user must name a file.
NOT_GIVEN = "GIVE-MODEL.WEIGHTS"


def architecture_keys(arch: str) -> dict[str, int]:
    """The config keys with which detectron2 builds an architecture, and their values."""
    return {key: getattr(parse_arch(arch), field) for key, field in ARCHITECTURE_KEYS.items()}


def init_values(weights: str, preprocessing: Mapping[str, Any], arch: str) -> dict[str, Any]:
    """What an init overlay holds.

    Depth and widths are the recipe's own affair, except for widths that no recipe has.

    Args:
        weights: MODEL.WEIGHTS.
        preprocessing: the record's fields.
        arch: the architecture's name; "" where nobody knows it.
    """
    values = {"MODEL.WEIGHTS": weights} | {
        key: preprocessing[field] for field, key in PREPROCESSING_KEYS.items()
    }
    channels, limits = len(preprocessing["pixel_mean"]), preprocessing.get("range", [])
    if channels != 3 or limits:
        values |= {CHANNEL_KEYS["channels"]: channels, CHANNEL_KEYS["range"]: limits}
    return values if re.fullmatch(r"(resnet\d+)?", arch) else values | architecture_keys(arch)


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
