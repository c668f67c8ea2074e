"""Whether watching for longer would bring anything new, as far as watching can tell. Seconds are passed in."""

from __future__ import annotations

LEAST = 30.0
"""Seconds without anything new, at least."""


class Convergence:
    """Of one time of watching. All seconds are since that began, and go forward.

    It has converged once nothing new has come for LEAST seconds, and for as long as it took until the last new thing
    came: what first came after ten minutes was rare, and the next thing may be as rare.
    """

    def __init__(self) -> None:
        self._last = 0.0

    def news(self, at: float) -> None:
        """Something was seen that had not been seen before."""
        self._last = max(self._last, at)

    @property
    def last(self) -> float:
        """When the last new thing came; 0 where none has come yet."""
        return self._last

    @property
    def needed(self) -> float:
        """So many seconds without anything new it takes, as things stand."""
        return max(LEAST, self._last)

    def quiet(self, now: float) -> float:
        """Seconds in which nothing new has come."""
        return max(0.0, now - self._last)

    def left(self, now: float) -> float:
        """Seconds until it has converged, if nothing new comes; 0 where it has."""
        return max(0.0, self._last + self.needed - now)

    def converged(self, now: float) -> bool:
        return self.left(now) == 0.0
