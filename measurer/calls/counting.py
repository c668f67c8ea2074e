"""How often and how fast calls are made, out of counters that never stop and go round at 2**32. Pure: time is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

ROUND = 1 << 32
LEAST_SPAN = 0.5
"""Seconds: what is counted over less says nothing of a second."""


class Pace:
    """Of one counter: how fast it rises while it is looked at, on average and in its busiest span."""

    def __init__(self) -> None:
        self._count = self._risen = 0
        self._at: float | None = None
        self._seconds = self._most = 0.0

    def begin(self, count: int, now: float) -> None:
        """What was counted until now does not matter."""
        self._count, self._at = count, now

    def look(self, count: int, now: float) -> None:
        """Again and again, about once a second."""
        if self._at is None or now - self._at < LEAST_SPAN:
            return
        span, risen = now - self._at, (count - self._count) % ROUND
        self._risen, self._seconds = self._risen + risen, self._seconds + span
        self._most = max(self._most, risen / span)
        self.begin(count, now)

    def rest(self) -> None:
        """It is looked at no more, until `begin`."""
        self._at = None

    def told(self) -> tuple[float, float] | None:
        """Average and most, a second, since it was last asked for; None while nothing was looked at since."""
        if not self._seconds:
            return None
        found = self._risen / self._seconds, self._most
        self._risen, self._seconds, self._most = 0, 0.0, 0.0
        return found


class Totals:
    """Of many counters: how often each rose since the first reading. One must not go round between two readings."""

    def __init__(self) -> None:
        self._before: Sequence[int] = ()
        self.risen: Counter[int] = Counter()

    def take(self, counts: Sequence[int]) -> None:
        before = self._before or (0,) * len(counts)
        self._before = counts
        for number, (now, then) in enumerate(zip(counts, before, strict=True)):
            if now != then:
                self.risen[number] += (now - then) % ROUND
