#!/usr/bin/env python
"""Fine-tune a detector: --config-file RECIPE --init INIT --num-gpus N MODEL.WEIGHTS backbone.pkl [KEY VALUE …]."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("train")
