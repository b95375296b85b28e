"""What the doctor says of one thing."""

from __future__ import annotations

import dataclasses

OK, WARNING, STOP = "ok", "warning", "STOP"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        verdict: OK; WARNING: runs start and something is slow, absent or near its end; STOP: no run starts.
        found: in words.
        fix: what to do about it; empty where nothing need be done.
    """

    name: str
    verdict: str
    found: str
    fix: str = ""
