#!/usr/bin/env python
"""A SLURM job that is queued again when it is interrupted: `tools/launch_slurm.py --nodes 2 -- tools/… …`."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("slurm")
