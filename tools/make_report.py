#!/usr/bin/env python
"""Run folders in, report.html (and .md, .csv) out: `tools/make_report.py RUN... --output DIR`."""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("report")
