"""Fixtures and settings of all tests, of the package and of the projects."""

import os
import sys
from pathlib import Path

import torch

# A run on the CPU chooses its number of threads by the load at its start, and rounds by that number: so that tests
# which compare two runs do not depend on what else this machine does, they choose it.
os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
# Each project's package is importable, also in the processes that its tests start.
sys.path[:0] = [str(path) for path in Path(__file__).parent.glob("projects/*/")]
