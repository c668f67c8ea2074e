"""How often calls are made, and who began with those that are outside of the baseline: what is told beside the layer.

It is another each time, so that no digest has it, and nothing is judged by it but a policy's own rules.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_OFFENCES = 16
MOST_EXECUTABLE = 256
"""Characters of a path, in what is told beside the layer."""
MOST_MAGNITUDE = 63


@dataclass(frozen=True, slots=True)
class Offence:
    """Who was the first to make a call outside of the baseline since watching began, and how long before the
    measurement. pid: as the measurer numbers it, 0 where nobody knows; executable: empty where nobody knows.
    """

    call: str
    pid: int
    executable: str
    age_ms: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Every amount is a magnitude: coarse, so that what is steady is told alike.

    counts: how often each call of the layer was made, in its sequence, since watching began; 0 for what is not
    counted, as operations of io_uring are. rate, peak: calls a second since the measurement before, on average and in
    the busiest second. events: a second, that the kernel told of the workload. offences: the earliest of those outside
    of the baseline, by their age. more: how many calls outside of it have no offence here.
    """

    counts: tuple[int, ...] = ()
    rate: int = 0
    peak: int = 0
    events: int = 0
    offences: tuple[Offence, ...] = ()
    more: int = 0


def magnitude(count: int) -> int:
    """0 for none, else one more than the exponent of the power of two that it is rounded up to."""
    return (count - 1).bit_length() + 1 if count > 0 else 0


def amount(magnitude: int) -> int:
    """The power of two, or 0."""
    return 1 << (magnitude - 1) if magnitude else 0
