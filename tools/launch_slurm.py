#!/usr/bin/env python
"""A run as a SLURM job that is queued again when it is cut: `tools/launch_slurm.py --nodes 2 -- tools/… …`."""

from moco_det.engine.slurm import main

if __name__ == "__main__":
    main()
