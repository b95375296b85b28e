#!/usr/bin/env python
"""Pre-train with SimSiam: as tools/pretrain_moco.py, with this project's method and recipes."""

from moco_det.pretrain.command import argument_parser, run
from moco_det.utils.errors import user_errors
from moco_simsiam import add_simsiam_config


@user_errors
def main() -> None:
    run(argument_parser().parse_args(), add_configs=[add_simsiam_config])


if __name__ == "__main__":
    main()
