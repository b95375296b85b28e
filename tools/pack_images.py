#!/usr/bin/env python
"""Make a packed copy of images: small JPEGs in tar shards, which --images takes like a folder. See --help."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("pack")
