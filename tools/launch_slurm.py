#!/usr/bin/env python
"""A SLURM job that is queued again when it is interrupted: `tools/launch_slurm.py --nodes 2 -- tools/… …`."""

from moco_det.engine.slurm import main

if __name__ == "__main__":
    main()
