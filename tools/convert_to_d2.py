#!/usr/bin/env python
"""Convert a checkpoint to detectron2's backbone.pkl, with proof."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("convert")
