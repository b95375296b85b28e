#!/usr/bin/env python
"""Render the toy world: unlabeled images, class folders, PASCAL VOC and COCO data. See --help."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("toyworld")
