#!/usr/bin/env python
"""Re-run the paper's ablations: dictionary momentum --images DIR --classes DIR --seeds 3 --output DIR."""

from moco_det.benchmark.ablation import main

if __name__ == "__main__":
    main()
