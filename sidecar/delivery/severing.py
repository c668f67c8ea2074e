"""What Envoy has open to addresses that are denied, ended: after it no longer opens anything there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from attestation.channel import Message, Sever, Severed

PAUSES = (0.02, 0.1, 0.5, 2.0, 5.0)
"""Seconds until it is looked again. The first is for Envoy's workers, which take up within milliseconds what its main
thread acknowledged; the others are for what could not be ended."""
MOST_AT_ONCE = 1000
"""Addresses of one order, which is one datagram."""


@dataclass(frozen=True, slots=True)
class Cut:
    """left: connections to the denied addresses that nobody here can end; they end by their duration cap."""

    addresses: tuple[str, ...]
    destroyed: int
    left: int


class Severing:
    """order: hands a message to the measurer. over: called when nothing is left, or nothing more can be done."""

    def __init__(self, order: Callable[[Message], None], over: Callable[[Cut], None]) -> None:
        self._order = order
        self._over = over
        self._addresses: tuple[str, ...] = ()
        self._number = 0
        self._awaited: set[int] = set()
        self._looked = 0
        self._destroyed = 0
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, addresses: tuple[str, ...]) -> None:
        """Of these, and no longer of those before."""
        self.stop()
        self._addresses, self._looked, self._destroyed = addresses, 0, 0
        if addresses:
            self._look()

    def severed(self, done: Severed) -> None:
        """The measurer's answer. The first look is no proof: Envoy may have been about to connect."""
        if done.number not in self._awaited:
            return
        self._awaited.remove(done.number)
        self._destroyed += done.destroyed
        self._left += done.left
        if self._awaited:
            return
        if self._looked <= len(PAUSES) and (self._left or self._looked == 1):
            self._timer = asyncio.get_running_loop().call_later(PAUSES[self._looked - 1], self._look)
            return
        self._over(Cut(self._addresses, self._destroyed, self._left))

    def stop(self) -> None:
        self._awaited.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._looked += 1
        self._left = 0
        orders = []
        for start in range(0, len(self._addresses), MOST_AT_ONCE):
            self._number += 1
            orders.append(Sever(self._number, self._addresses[start : start + MOST_AT_ONCE]))
        self._awaited = {order.number for order in orders}
        for order in orders:
            self._order(order)
