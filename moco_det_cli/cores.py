"""The processor as the operating system tells of it: cores that may be used, and those that others use."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allowed_cores() -> set[int]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """How many cores' worth of time this process gets at most: those allowed, or a container's quota."""
    return max(1, math.ceil(min(len(allowed_cores()), cgroup_quota())))


def cgroup_quota(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time that Linux's control groups grant (``docker run --cpus``); infinity without a limit."""
    quotas = []
    try:  # version 1, or mixed
        period = int((cgroups / "cpu/cpu.cfs_period_us").read_text())
        quotas.append((int((cgroups / "cpu/cpu.cfs_quota_us").read_text()), period))
    except (OSError, ValueError):
        pass
    try:  # version 2: the group of this process and all above it
        path = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        path = "/"
    group = cgroups / path.strip("/")
    for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(cgroups))):
        try:
            quota, period = map(int, (folder / "cpu.max").read_text().split())  # "max …" is no limit
            quotas.append((quota, period))
        except (OSError, ValueError):
            continue
    return min((quota / period for quota, period in quotas if quota > 0), default=math.inf)


def busy_cores(seconds: float = 0.3) -> float | None:
    """How many of the allowed cores are at work while this process waits; None where /proc does not tell."""
    before = _times()
    time.sleep(seconds)
    after = _times()
    busy = 0.0
    for core in before.keys() & after.keys():
        spent = [b - a for a, b in zip(before[core], after[core], strict=True)]
        idle = spent[3] + spent[4]  # idle, and idle while waiting for a disk
        busy += (1 - idle / sum(spent)) if sum(spent) > 0 else 0
    return busy if before else None


def _times() -> dict[int, list[int]]:
    """The clock ticks that each allowed core spent in each state since the machine started."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines if line.startswith("cpu") and line[3].isdigit())
    # The last two columns, guests, are counted in the first two already.
    times = {int(row[0][3:]): list(map(int, row[1:9])) for row in rows}
    return {core: times[core] for core in allowed_cores() & times.keys()}


def free_cores(busy: float) -> int:
    """How many threads can compute side by side where other programs use ``busy`` cores; at least one."""
    return max(1, min(usable_cores(), round(len(allowed_cores()) - busy)))
