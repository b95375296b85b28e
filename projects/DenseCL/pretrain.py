#!/usr/bin/env python
"""Pre-train with DenseCL: as tools/pretrain_moco.py, with this project's keys and recipes."""

from moco_densecl import add_densecl_config
from moco_det.pretrain.command import argument_parser, run
from moco_det.utils.errors import user_errors


@user_errors
def main() -> None:
    run(argument_parser().parse_args(), add_configs=[add_densecl_config])


if __name__ == "__main__":
    main()
