"""Which files are read again when nothing says that they changed: by chance, so that nobody knows what is due.

A forged or frozen change time hides a change from every look; only reading finds it. Each file is read at the events
of a Poisson process: that it was read just now, which a workload can watch, says nothing about when it is next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from random import Random

UNIT = 64
"""Files of one folder that are read together."""
LEAST_STEP = 1.0
"""Seconds between two draws on average, at least: a draw takes more files where there are many."""


class Chance:
    """mean: seconds after which a file is read again, on average. random: secrets.SystemRandom, which is the kernel's
    cryptographic generator; another only where the outcome has to be repeatable.

    P(not read for t seconds) is exp(-t / mean): 5 % of all files are not read for 3 means, 1 % for 4.6.
    """

    def __init__(self, mean: float, random: Random) -> None:
        self._mean, self._random = mean, random
        self._folders: list[bytes] = []
        self._ends: list[int] = []

    @property
    def units(self) -> int:
        return self._ends[-1] if self._ends else 0

    def fill(self, folders: Iterable[tuple[bytes, int]]) -> None:
        """What there is to be read: folders and how many entries each has."""
        there = [(path, -(-count // UNIT)) for path, count in folders if count]
        self._folders = [path for path, _ in there]
        self._ends = list(accumulate(units for _, units in there))

    def gap(self) -> float:
        """Seconds until the next draw."""
        return self._random.expovariate(1.0 / self._step)

    def draw(self) -> list[tuple[bytes, int]]:
        """What to read now: folders, and which unit of each."""
        if not self.units:
            return []
        share = self.units * self._step / self._mean
        count = int(share) + (self._random.random() < share % 1)
        return [self._pick() for _ in range(count)]

    @property
    def _step(self) -> float:
        return max(LEAST_STEP, self._mean / self.units) if self.units else self._mean

    def _pick(self) -> tuple[bytes, int]:
        number = self._random.randrange(self.units)
        at = bisect_right(self._ends, number)
        return self._folders[at], number - (self._ends[at - 1] if at else 0)
