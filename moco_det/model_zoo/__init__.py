"""The registered recipes by name: from a checkout (``configs/``) as from a wheel (``moco_det/configs``).

A name is a path below that folder without ``.yaml``, e.g. ``"PascalVOC-Detection/faster_rcnn_R_50_C4_24k"``.
"""

from moco_det.model_zoo.model_zoo import get_config
from moco_det_cli.places import (
    CONFIGS,
    get_config_file,
    get_init_file,
    list_configs,
    list_inits,
    recipe_name,
)

__all__ = [
    "CONFIGS",
    "get_config",
    "get_config_file",
    "get_init_file",
    "list_configs",
    "list_inits",
    "recipe_name",
]
