#!/usr/bin/env python
"""Measure each part next to a plain version of the published recipe: --part loader step --output DIR."""

from moco_det.speed.command import main

if __name__ == "__main__":
    main()
