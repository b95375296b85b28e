#!/usr/bin/env python
"""Run folders in, report.html (and .md, .csv) out: `tools/make_report.py RUN... --output DIR`."""

from moco_det.report.report import main

if __name__ == "__main__":
    main()
