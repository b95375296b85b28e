#!/usr/bin/env python
"""Pre-train with MoCoV3: as tools/pretrain_moco.py, with this project's method and recipes."""

from moco_det.pretrain.command import argument_parser, run
from moco_det.utils.errors import user_errors
from moco_v3 import add_moco_v3_config


@user_errors
def main() -> None:
    run(argument_parser().parse_args(), add_configs=[add_moco_v3_config])


if __name__ == "__main__":
    main()
