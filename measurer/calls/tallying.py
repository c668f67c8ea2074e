"""What is told of calls beside their layer (attestation/tally.py), put together out of what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil

from attestation import calls
from attestation.tally import Tally, magnitude
from measurer.bpf.watch import Watched
from measurer.calls.counting import Pace, Totals
from measurer.calls.outside import Outside

_TOTALS = 60.0
"""Seconds after which counters are read at the latest: the fastest processor makes none go round in that time."""


class Tallying:
    """Of one workload, from its beginning on. Times are CLOCK_BOOTTIME seconds."""

    def __init__(self, watched: Watched, now: float) -> None:
        self._watched = watched
        self._calls, self._events = Pace(), Pace()
        self._totals, self._read_at = Totals(), now
        self._heard, self._looks = 0, False
        self._rate = self._peak = self._events_rate = 0.0
        self._events.begin(0, now)

    def heard(self) -> None:
        """The kernel told something."""
        self._heard += 1

    def looks(self, begins: bool, now: float) -> None:
        """Calls are looked at from now on, or no more."""
        if not begins:
            self.look(now)
            self._calls.rest()
        elif not self._looks:
            self._calls.begin(self._watched.made, now)
        self._looks = begins

    def look(self, now: float) -> None:
        """About once a second."""
        self._events.look(self._heard, now)
        if not self._looks:
            return
        self._calls.look(self._watched.made, now)
        if now - self._read_at > _TOTALS:
            self._read(now)

    def tally(self, made: Sequence[str], outside: Outside, began: float) -> Tally:
        """made: the calls of the layer, as it has them."""
        self.look(began)
        self._read(began)
        if (paced := self._calls.told()) is not None:
            self._rate, self._peak = paced
        if (paced := self._events.told()) is not None:
            self._events_rate, _ = paced
        rate, peak, events = (magnitude(ceil(each)) for each in (self._rate, self._peak, self._events_rate))
        counted, (offences, more) = _by_name(self._totals.risen, calls.named()), outside.offences(began)
        return Tally(tuple(magnitude(counted[name]) for name in made), rate, peak, events, offences, more)

    def _read(self, now: float) -> None:
        self._totals.take(self._watched.counts)
        self._read_at = now


def _by_name(risen: Counter[int], named: Callable[[int], str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for number, count in risen.items():
        counted[named(number)] += count
    return counted
