#!/usr/bin/env python
"""Re-run the paper's ablations: dictionary momentum --images DIR --classes DIR --seeds 3 --output DIR."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("ablation")
