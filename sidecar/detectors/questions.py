"""What only the measurer knows: whose process had a pid. Asked by number, answered once."""

from __future__ import annotations

from collections.abc import Callable

from attestation.channel import Owned, Whose
from attestation.facts import Actor

MOST_WAITING = 256
Answered = Callable[[bool | None, Actor | None], None]
"""Whether it is the workload's, None where nobody can tell; and the process, where it is."""


class Questions:
    """order: hands one to the measurer, at once."""

    def __init__(self, order: Callable[[Whose], None]) -> None:
        self._order = order
        self._number = 0
        self._waiting: dict[int, Answered] = {}

    def ask(self, pid: int, by: float, answered: Answered) -> None:
        """by: CLOCK_BOOTTIME seconds at which it had that pid."""
        if len(self._waiting) >= MOST_WAITING:
            answered(None, None)
            return
        self._number += 1
        self._waiting[self._number] = answered
        self._order(Whose(self._number, pid, by))

    def answered(self, owned: Owned) -> None:
        waiting = self._waiting.pop(owned.number, None)
        if waiting is not None:
            waiting(owned.workload, owned.process)

    def forget(self) -> None:
        """There is no measurer any more: nobody can tell."""
        waiting, self._waiting = self._waiting, {}
        for answered in waiting.values():
            answered(None, None)
