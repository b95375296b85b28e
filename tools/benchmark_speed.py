#!/usr/bin/env python
"""Measure each part next to a plain version of the published recipe: --part loader step --output DIR."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("speed")
