"""What the commands of the stages that train have in common."""

import argparse
from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser

from moco_det.config import get_cfg, merge_config
from moco_det.model_zoo import get_config_file

DRY_RUN = "check everything, print what the run will be, write nothing"
AddConfig = Callable[[CfgNode], None]  # adds a project's keys to a config


def stage_parser(
    description: str, example: str, dry_run: str = DRY_RUN, eval_only: str = argparse.SUPPRESS
) -> argparse.ArgumentParser:
    """Make a parser of detectron2's options and ``--dry-run``, with help that speaks of this package.

    Without ``--num-gpus`` a run takes one GPU where there is one, else the CPU.

    Args:
        dry_run: the help of that option.
        eval_only: the help of that option, which a stage without one takes only to refuse it.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"Example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the example on one line, to be copied
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="a recipe: a name below configs/ or a YAML file")
    add(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint in OUTPUT_DIR, if there is one",
    )
    add("--eval-only", action="store_true", help=eval_only)
    add("--num-gpus", type=int, help="GPUs of each machine; 0: the CPU; default: one where there is one")
    add("--num-machines", type=int, default=1, help="machines of the run; default: 1")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0 on; default: 0")
    url = default_argument_parser().get_default("dist_url")  # a port for each user
    add(
        "--dist-url",
        default=url,
        help="where processes meet: tcp://FIRST_MACHINE:PORT; default: this machine",
    )
    add("--dry-run", action="store_true", help=dry_run)
    add(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys and their values, over the recipe, at the end of the command (docs/CONFIG.md)",
    )
    return parser


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
