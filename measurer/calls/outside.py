"""Calls outside of the baseline: each is told once until all is told anew, and the first of each is remembered."""

from __future__ import annotations

from attestation.facts import Actor
from attestation.tally import MOST_EXECUTABLE, MOST_OFFENCES, Offence

_MOST_KNOWN = 1024
"""Names: more than there are."""


class Outside:
    """Of one workload, from its beginning on. Pure: time is given."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._first: dict[str, tuple[Actor, float]] = {}

    def is_news(self, call: str, by: Actor, at: float) -> bool:
        """Was it not told since the last `turn`? at: CLOCK_BOOTTIME seconds. Whoever was first stays the first."""
        if call not in self._first and len(self._first) < _MOST_KNOWN:
            self._first[call] = by, at
        if call in self._told:
            return False
        self._told.add(call)
        return True

    def turn(self) -> None:
        """All is told anew."""
        self._told.clear()

    def allow(self, calls: frozenset[str]) -> None:
        """These are within the baseline by now."""
        self._first = {call: first for call, first in self._first.items() if call not in calls}

    def offences(self, at: float) -> tuple[tuple[Offence, ...], int]:
        """The earliest, and how many there are beside them. at: when the measurement began."""
        listed = sorted(self._first.items(), key=lambda each: each[1][1])
        return (
            tuple(
                Offence(call, by.pid, by.executable[:MOST_EXECUTABLE], max(0, int((at - since) * 1000)))
                for call, (by, since) in listed[:MOST_OFFENCES]
            ),
            len(listed[MOST_OFFENCES:]),
        )
