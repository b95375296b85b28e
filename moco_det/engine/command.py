"""What the commands of the stages that train have in common."""

import argparse
from collections.abc import Callable, Sequence

from detectron2.config import CfgNode

from moco_det.config import get_cfg, merge_config
from moco_det.model_zoo import get_config_file

DRY_RUN = "check everything, print what the run will be, write nothing"
AddConfig = Callable[[CfgNode], None]  # adds a project's keys to a config


def read_config(
    args: argparse.Namespace,
    add_configs: Sequence[AddConfig],
    example: str,
    overlays: tuple[str | CfgNode, ...] = (),
) -> tuple[CfgNode, list[str]]:
    """Recipe < overlays < KEY VALUE pairs.

    Args:
        example: a recipe of the stage, for the message where none is given.

    Returns:
        the config, and the names of the keys that were set.

    Raises:
        ValueError: there is no recipe, or a key is unknown.
    """
    if not args.config_file:
        raise ValueError(f"there is no --config-file; give a recipe such as {example}")
    cfg = get_cfg(add_configs)
    return cfg, merge_config(cfg, get_config_file(args.config_file), args.opts, overlays)
