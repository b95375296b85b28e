#!/usr/bin/env python
"""Which data sets are complete, what is missing, and where to get it: `tools/check_datasets.py --tasks voc-c4`."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("check-datasets")
