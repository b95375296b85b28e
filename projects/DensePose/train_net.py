#!/usr/bin/env python
"""Fine-tune DensePose R-CNN: as tools/train_net.py, with this project's keys and recipes."""

from moco_densepose import add_densepose_config
from moco_det.finetune.command import make_parser, run
from moco_det.utils.errors import user_errors


@user_errors
def main() -> None:
    run(make_parser().parse_args(), add_configs=[add_densepose_config])


if __name__ == "__main__":
    main()
