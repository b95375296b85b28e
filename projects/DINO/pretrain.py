#!/usr/bin/env python
"""Pre-train with DINO: as tools/pretrain_moco.py, with this project's keys and recipes."""

from moco_det.pretrain.command import argument_parser, run
from moco_det.utils.errors import user_errors
from moco_dino import add_dino_config


@user_errors
def main() -> None:
    run(argument_parser().parse_args(), add_configs=[add_dino_config])


if __name__ == "__main__":
    main()
