"""The clocks the measurer reads."""

from __future__ import annotations

import time


def boottime() -> float:
    """CLOCK_BOOTTIME in seconds: when something happened, comparable with the sidecar's readings."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def monotonic() -> float:
    """CLOCK_MONOTONIC in seconds: for silences, which a suspended machine must not make longer."""
    return time.monotonic()


def spent() -> float:
    """Seconds of a processor that this thread has had."""
    return time.thread_time()
