#!/usr/bin/env python
"""Fine-tune tasks x inits x seeds, and report: --suite toy --inits random moco=FILE --seeds 3 --output DIR."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("benchmark")
