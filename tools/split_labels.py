#!/usr/bin/env python
"""Split a label file in COCO's format into one to train on and one to test on. See --help."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("split")
