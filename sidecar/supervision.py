"""When an Envoy of ours is started again after it ended. Pure: its ends go in, pauses come out.

Envoy is never restarted hot: its successor would ask for the key while it still runs (docs/adr, "no hot restart").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from wire import backoff

STEADY = 10.0
"""Seconds that an Envoy must have lived to count as one that runs: what fails earlier fails at its start."""

LOOPING = 3
"""Ends in a row, each before it was steady, from which on it is a loop that somebody has to look at."""

FIRST, MOST = 0.1, 15.0
"""Seconds of the longest first pause, and of the longest of all."""


@dataclass(frozen=True, slots=True)
class End:
    """lived: seconds. wanted: a closing asked for it. why: its status and last words."""

    lived: float
    wanted: bool
    why: str


@dataclass(frozen=True, slots=True)
class Course:
    """failures: ends in a row that nobody wanted and that came before it was steady."""

    failures: int = 0

    @property
    def looping(self) -> bool:
        return self.failures >= LOOPING


class Restart(NamedTuple):
    """Start it again after so many seconds."""

    course: Course
    pause: float


def restart(course: Course, end: End, chance: float) -> Restart:
    """What follows an end. chance: uniform in [0, 1), from the caller.

    One that we ended for a closing is back at once: it comes back closed, and recovery is not to wait for it. Others
    come back after a pause that grows with their failures, with full jitter, so that a fleet does not come back as one.
    """
    if end.wanted:
        return Restart(Course(), 0.0)
    failures = 1 if end.lived >= STEADY else course.failures + 1
    return Restart(Course(failures), backoff.delay(failures - 1, chance, first=FIRST, most=MOST))
