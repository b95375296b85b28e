#!/usr/bin/env python
"""Pre-train with CMC: as tools/pretrain_moco.py, with this project's keys and recipes."""

from moco_cmc import add_cmc_config
from moco_det.pretrain.command import argument_parser, run
from moco_det.utils.errors import user_errors


@user_errors
def main() -> None:
    run(argument_parser().parse_args(), add_configs=[add_cmc_config])


if __name__ == "__main__":
    main()
