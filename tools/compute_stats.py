#!/usr/bin/env python
"""Mean and std of images unlike ImageNet's: `tools/compute_stats.py --images DIR --output FILE.yaml`."""

from moco_det.pretrain.stats import main

if __name__ == "__main__":
    main()
