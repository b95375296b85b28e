#!/usr/bin/env python
"""Fine-tune tasks x inits x seeds, and report: --suite toy --inits random moco=FILE --seeds 3 --output DIR."""

from moco_det.benchmark.command import main

if __name__ == "__main__":
    main()
