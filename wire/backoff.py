"""How long to wait before trying again: exponential with full jitter, so that a fleet does not come back as one."""

from __future__ import annotations

FIRST = 0.25
MOST = 15.0
_MOST_DOUBLINGS = 16


def delay(attempt: int, chance: float, *, first: float = FIRST, most: float = MOST) -> float:
    """Seconds before attempt number `attempt` (0 is the first retry). chance: uniform in [0, 1), from the caller."""
    return chance * min(most, first * 2.0 ** min(attempt, _MOST_DOUBLINGS))
