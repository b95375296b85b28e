#!/usr/bin/env python
"""Mean and std of images unlike ImageNet's: `tools/compute_stats.py --images DIR --output FILE.yaml`."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("stats")
