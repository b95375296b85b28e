"""The registered recipes, and what they are: see :mod:`moco_det.model_zoo.model_zoo`."""

from moco_det.model_zoo.model_zoo import (
    CONFIGS,
    get_config,
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
