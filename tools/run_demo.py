#!/usr/bin/env python
"""The whole way in one command: toy world, pre-train, convert, fine-tune, report.

tools/run_demo.py --output output/demo
tools/run_demo.py --scale photos --cutouts DIR --backgrounds DIR --output output/photos
"""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("demo")
