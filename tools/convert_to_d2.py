#!/usr/bin/env python
"""Convert a checkpoint to detectron2's backbone.pkl, with proof."""

from moco_det.convert.command import main

if __name__ == "__main__":
    main()
