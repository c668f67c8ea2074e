"""Whose reference values expire soon, or have: said in time to build them anew, and not over and over."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from attestation.quantities import instant_text
from authority.rules import Ruling
from telemetry.names import Event

_DAY = 86_400
_TOLD_AT = (-14 * _DAY, -_DAY, 0)
"""Seconds from the end: each is told of once."""


class Expiring:
    """log: of the authority."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._told: dict[tuple[str, int], int] = {}

    def look(self, rulings: Iterable[Ruling], now: float) -> None:
        """Tells of each document that has come nearer to its end than it was told of. now: Unix seconds."""
        due = {each for ruling in rulings if (each := _end(ruling)) is not None}
        self._told = {each: stage for each, stage in self._told.items() if each in due}
        for name, ends in sorted(due):
            stage = bisect_right(_TOLD_AT, now - ends)
            if stage > self._told.get((name, ends), 0):
                self._told[name, ends] = stage
                event = Event.REFERENCES_EXPIRED if now >= ends else Event.REFERENCES_EXPIRE
                self._log.warning(event, references=name, at=instant_text(ends), mend=_MEND)


_MEND = "Build these reference values anew, or look through them, and state a later `expires`."


def _end(ruling: Ruling) -> tuple[str, int] | None:
    expires = ruling.references.spec.expires
    return None if expires is None else (ruling.references.stated_by("expires")[0].qualified, expires)
