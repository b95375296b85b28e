"""A registered recipe as a config; :mod:`moco_det_cli.places` finds its file."""

from detectron2.config import CfgNode

from moco_det.config import get_cfg, merge_config
from moco_det.config.overlays import resolve_weights
from moco_det_cli.places import get_config_file, get_init_file


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
