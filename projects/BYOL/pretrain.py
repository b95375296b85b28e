#!/usr/bin/env python
"""Pre-train with BYOL: as tools/pretrain_moco.py, with this project's method and recipes."""

from moco_byol import add_byol_config
from moco_det.pretrain.command import argument_parser, run
from moco_det.utils.errors import user_errors


@user_errors
def main() -> None:
    run(argument_parser().parse_args(), add_configs=[add_byol_config])


if __name__ == "__main__":
    main()
