#!/usr/bin/env python
"""Say what a weight file is: family, network, tensors, preprocessing, provenance."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("inspect")
