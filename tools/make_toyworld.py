#!/usr/bin/env python
"""Render the toy world: unlabeled images, class folders, PASCAL VOC and COCO data. See --help."""

from moco_det.toyworld.make import main

if __name__ == "__main__":
    main()
