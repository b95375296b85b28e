"""How a backbone starts: the init overlays (configs/init/, convert's) and what a config must keep of them."""

import dataclasses
import os

import yaml
from detectron2.config import CfgNode

from moco_det.config import known_keys, load_yaml
from moco_det.config.overlays import (
    ARCHITECTURE_KEYS,
    CHANNEL_KEYS,
    NOT_GIVEN,
    PREPROCESSING_KEYS,
    init_values,
    overlay_text,
    resolve_weights,
)
from moco_det.finetune.loaded_weights import LoadedWeights, read_weights
from moco_det.model_zoo import get_init_file
from moco_det.weights.backbone_file import Preprocessing

OVERLAY_KEYS = ("MODEL.WEIGHTS", *PREPROCESSING_KEYS.values())
# What tools/compute_stats.py writes: as an init, a start from scratch.
STATISTICS_KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")


@dataclasses.dataclass(frozen=True)
class Init:
    """An init overlay.

    Attributes:
        name: ``"moco"``, ``"random"``, …, or the file name of a user's own overlay.
        overlay: its YAML file, or what such a file would hold.
        weights: its MODEL.WEIGHTS, a relative path counted from the file's folder; empty for a random start.
        preprocessing: how its weights want their input.
        loaded: the weights, where reading the overlay read them.
    """

    name: str
    overlay: str | CfgNode
    weights: str
    preprocessing: Preprocessing
    loaded: LoadedWeights | None = None


def read_init(name: str) -> Init:
    """Read an overlay by its name in configs/init or by its path, or take a backbone file as its own overlay.

    Raises:
        ValueError: there is none of this name, it does not hold exactly OVERLAY_KEYS, or the backbone file does
            not say how it wants its input.
    """
    if name.endswith((".pkl", ".pth")):
        return _init_of_backbone(name)
    if name.endswith(".safetensors"):
        raise ValueError(
            f"--init is {name!r}, a kind of file that detectron2 does not load; "
            f"make a .pkl of it: tools/convert_to_d2.py {name} backbone.pkl"
        )
    path = get_init_file(name)
    overlay, values = path, CfgNode(load_yaml(path))
    found = set(known_keys(values))
    if found - set(CHANNEL_KEYS.values()) == set(STATISTICS_KEYS):
        values.MODEL.WEIGHTS, values.MODEL.RESNETS = "", CfgNode({"STRIDE_IN_1X1": False})
        overlay, found = values, set(known_keys(values))
    more = found - set(OVERLAY_KEYS)
    for keys in (set(ARCHITECTURE_KEYS), set(CHANNEL_KEYS.values())):
        more -= keys if keys <= more else set()
    if more or not found >= set(OVERLAY_KEYS):
        raise ValueError(
            f"init overlay {path!r} holds {sorted(found)}; expected exactly {sorted(OVERLAY_KEYS)}, for a network "
            f"of other widths {sorted(ARCHITECTURE_KEYS)} too, and for other than plain RGB images "
            f"{sorted(CHANNEL_KEYS.values())}; or what tools/compute_stats.py writes, for a start from scratch"
        )
    short = os.path.splitext(os.path.basename(path))[0]
    return Init(short, overlay, resolve_weights(values.MODEL.WEIGHTS, path), preprocessing_of(values))


def _init_of_backbone(path: str) -> Init:
    if not os.path.isfile(path):
        raise ValueError(f"--init {path!r} does not exist (looked in {os.getcwd()!r})")
    loaded = read_weights(path, "--init")
    preprocessing = loaded.preprocessing
    if preprocessing is None:
        raise ValueError(
            f"--init {path!r} is a weight file that does not say how it wants its input; write it with "
            "tools/convert_to_d2.py, or give an overlay (--init FILE.yaml)"
        )
    values = init_values(path, preprocessing.to_dict(), loaded.arch)
    overlay = CfgNode(yaml.safe_load(overlay_text("", (), values)))
    return Init(os.path.splitext(os.path.basename(path))[0], overlay, path, preprocessing, loaded)


def preprocessing_of(cfg: CfgNode) -> Preprocessing:
    """The preprocessing that a config asks for, in the form of a weight file's record."""
    return Preprocessing(
        format=cfg.INPUT.FORMAT,
        pixel_mean=tuple(map(float, cfg.MODEL.PIXEL_MEAN)),
        pixel_std=tuple(map(float, cfg.MODEL.PIXEL_STD)),
        stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
        range=tuple(map(float, cfg.INPUT.get("RANGE", ()))),
    )


def check_init(cfg: CfgNode, init: Init | None) -> None:
    """Refuse a start that is not what the init's name says.

    Raises:
        ValueError: weights are missing, given to a random start, or for another depth than the init's.
    """
    weights = cfg.MODEL.WEIGHTS
    if init is None and not weights:
        raise ValueError(
            "MODEL.WEIGHTS is empty and there is no --init; give --init random to start from scratch"
        )
    if init is not None and not init.weights and weights:
        raise ValueError(
            f"--init {init.name} starts from scratch, but MODEL.WEIGHTS is {weights!r}; "
            "leave MODEL.WEIGHTS out, or give --init moco"
        )
    if weights == NOT_GIVEN or (init is not None and init.weights and not weights):
        name = init.name if init is not None else "moco"
        raise ValueError(
            f"--init {name} needs a weight file and has none; give MODEL.WEIGHTS path/to/backbone.pkl "
            "(tools/convert_to_d2.py writes it), or --init random to start from scratch"
        )
    if not weights and cfg.MODEL.RESNETS.NORM == "FrozenBN":
        raise ValueError(
            "MODEL.RESNETS.NORM is FrozenBN, which keeps the batch norm of the weights, and there are none; "
            "take the recipe without _frozenBN, or another --init"
        )
    depth = cfg.MODEL.RESNETS.DEPTH
    if init is not None and init.weights.startswith("detectron2://ImageNetPretrained") and depth != 50:
        raise ValueError(
            f"--init {init.name} exists for MODEL.RESNETS.DEPTH 50, found {depth}; take a recipe of depth 50, "
            "--init random, or an overlay of your own (--init FILE.yaml)"
        )
