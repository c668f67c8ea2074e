"""Who had the loop wait for a file system, and is not measured again for a while: others wait for each try."""

from __future__ import annotations

from attestation.errors import Unavailable

PENALTY = 30.0
"""Seconds: what one of them can take from the others is a second or so in thirty."""


class Stalls:
    """Pure: times are CLOCK_MONOTONIC seconds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, who: str, now: float) -> None:
        """The loop had to go on without them."""
        self._until = {each: until for each, until in self._until.items() if until > now}
        self._until[who] = now + PENALTY

    def check(self, who: str, now: float) -> None:
        """Raises Unavailable where it was too short a while ago."""
        left = self._until.get(who, now) - now
        if left > 0:
            raise Unavailable(
                f"a file system of this workload did not answer; it is tried again in {left:.0f} s",
                where="measurer socket",
            )
