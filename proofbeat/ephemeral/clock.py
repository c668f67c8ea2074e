"""The clock by which traffic and the programs' log lines are compared."""

from __future__ import annotations

import time


def now() -> float:
    """CLOCK_BOOTTIME in seconds: the same in every process, whatever is done to the wall clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
