#!/usr/bin/env python
"""Say what on this machine would stop a run, and the fix: `tools/doctor.py`; needs nothing but Python."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # it runs before anything is installed

from moco_det_cli.command import run  # noqa: E402

if __name__ == "__main__":
    run("doctor")
