"""Where data sets and recipes lie. :mod:`moco_det.model_zoo` has the recipes' public names.

A recipe's name is its path below ``configs/`` without ``.yaml``.
"""

import difflib
import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]  # of a checkout, or site-packages
CONFIGS = next(
    (folder for folder in (_ROOT / "moco_det/configs", _ROOT / "configs") if folder.is_dir()),
    _ROOT / "moco_det/configs",
)


def datasets_root() -> str:
    """The folder in which detectron2 looks for data sets: ``$DETECTRON2_DATASETS``, else ``datasets``."""
    return os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))


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
    of_projects = sorted(_ROOT.glob(f"projects/*/configs/{plain}.yaml"))
    if kind == "recipe" and len(of_projects) == 1:
        return str(of_projects[0])
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0)
    raise ValueError(
        f"{name!r} is neither a YAML file (looked in {os.getcwd()!r}) nor a registered {kind}; "
        f"closest match: {near[0]!r}; all: {', '.join(known)}"
    )
