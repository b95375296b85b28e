"""The registered recipes, by name: from a checkout (``configs/``) as from a wheel (``moco_det/configs``).

A name is a path below that folder without ``.yaml``, e.g. ``"PascalVOC-Detection/faster_rcnn_R_50_C4_24k"``.
"""

import difflib
import os
from pathlib import Path

from detectron2.config import CfgNode

from moco_det.config import get_cfg, merge_config
from moco_det.config.overlays import resolve_weights

_PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = next(
    (f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir()), _PACKAGE / "configs"
)


def list_configs() -> list[str]:
    """The names of all recipes, sorted: neither the shared ``Base-*`` files nor the init overlays."""
    return [n for n in _names() if not n.startswith("init/") and not Path(n).name.startswith("Base-")]


def list_inits() -> list[str]:
    """The names of the init overlays, sorted: how a backbone can start."""
    return [n.removeprefix("init/") for n in _names() if n.startswith("init/")]


def _names() -> list[str]:
    return sorted(f.relative_to(CONFIGS).with_suffix("").as_posix() for f in CONFIGS.rglob("*.yaml"))


def get_config_file(name: str) -> str:
    """The path of a recipe's YAML; ``name`` may also be the path of any YAML file.

    In a checkout, the recipes of ``projects/*/configs`` are found too; they are not listed, since only their
    project's own script knows their keys and data sets.

    Raises:
        ValueError: no file and no recipe has this name; the closest match is named.
    """
    return _find(name, list_configs(), "recipe")


def get_init_file(name: str) -> str:
    """The path of an overlay, ``"moco"``, ``"random"``, … or a YAML file; see :func:`get_config_file`."""
    return _find(name, list_inits(), "init", folder="init")


def recipe_name(config_file: str) -> str:
    """The name of a recipe by its path, e.g. ``"toy/faster_rcnn_R_18_FPN"``; of others, folder and file name."""
    path = Path(config_file).resolve().with_suffix("")
    return path.relative_to(CONFIGS if path.is_relative_to(CONFIGS) else path.parent.parent).as_posix()


def _find(name: str, known: list[str], kind: str, folder: str = "") -> str:
    if name.endswith(".yaml") and os.path.isfile(name):
        return name
    plain = name.removesuffix(".yaml").removeprefix("configs/")
    if plain in known:
        return str(CONFIGS / folder / f"{plain}.yaml")
    of_projects = sorted(_PACKAGE.parent.glob(f"projects/*/configs/{plain}.yaml"))
    if kind == "recipe" and len(of_projects) == 1:
        return str(of_projects[0])
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0)
    raise ValueError(
        f"{name!r} is neither a YAML file (looked in {os.getcwd()!r}) nor a registered {kind}; "
        f"closest match: {near[0]!r}; all: {', '.join(known)}"
    )


def get_config(name: str, init: str | None = "moco", weights: str = "") -> CfgNode:
    """A recipe with an init overlay merged over it, ready for detectron2's own tools too.

    Args:
        name: a recipe, see :func:`list_configs`.
        init: how the backbone starts, see :func:`list_inits`; None merges no overlay.
        weights: what MODEL.WEIGHTS becomes, e.g. ``"backbone.pkl"``; empty leaves the overlay's value (that of
            ``"moco"`` names no file on purpose, so that loading it fails).

    Raises:
        ValueError: an unknown name; the closest match is named.
    """
    cfg = get_cfg()
    overlay = get_init_file(init) if init else ""
    merge_config(cfg, get_config_file(name), [], (overlay,))
    cfg.MODEL.WEIGHTS = weights or resolve_weights(cfg.MODEL.WEIGHTS, overlay)
    return cfg
