"""Which list of denials Envoy carries out, and when what it has open to the denied is to be ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from xds.acks import Publication, Settlement


class CarriedOut:
    """One Envoy's, until `forget`.

    taken: whether a settlement is Envoy's own acknowledgement. refuses: called with each version that it has taken
    over. sever: called where that cannot be waited for: Envoy said something else of a new list, or nothing in time.

    An Envoy that refuses one part of what it is told has taken over the others, or not: nobody can tell. Whoever can
    have it refuse something must not keep what is open to the denied from being cut.
    """

    def __init__(
        self, taken: Callable[[Settlement], bool], refuses: Callable[[int], None], sever: Callable[[], None]
    ) -> None:
        self._taken = taken
        self._refuses = refuses
        self._sever = sever
        self._late: asyncio.TimerHandle | None = None
        self.forget()

    def forget(self) -> None:
        """Another Envoy, or none: nothing counts of what this one was told or has answered."""
        self.version = 0
        """The newest that Envoy has acknowledged; 0 before the first."""
        self._told = self._answered = 0
        self._envoy = object()
        self._in_time()

    def told(self, version: int, publication: Publication, within: float) -> None:
        """Envoy was told, and has so many seconds. A newer list that it is told meanwhile gives it no more of them."""
        if version > self._told:
            self._told = version
            if self._late is None:
                self._wait(version, within)
        envoy = self._envoy
        publication.on_settled(lambda settlement: self._settled(version, settlement, envoy))

    def _settled(self, version: int, settlement: Settlement, envoy: object) -> None:
        # What was overtaken before it was written is no answer: that is still to come.
        if envoy is not self._envoy or settlement.superseded:
            return
        news = version > self._answered
        self._answered = max(version, self._answered)
        if self._answered == self._told:
            self._in_time()
        if self._taken(settlement):
            if version > self.version:
                self.version = version
                self._refuses(version)
        elif news:
            self._sever()

    def _wait(self, version: int, within: float) -> None:
        self._late = asyncio.get_running_loop().call_later(within, self._is_late, version, within)

    def _is_late(self, version: int, within: float) -> None:
        self._late = None
        self._sever()
        if self._told > version:
            self._wait(self._told, within)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
