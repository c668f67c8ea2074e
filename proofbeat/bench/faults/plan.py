"""Which fault comes when: a list made from a seed, the same for the same seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from proofbeat.demo.layout import Terms


class Target(StrEnum):
    SIDECAR = "sidecar"
    MEASURER = "measurer"
    ENVOY = "envoy"
    WORKLOAD = "workload"
    SIDE = "side"
    """All four processes of one workload at once, as a machine that is paused."""
    AUTHORITY = "authority"


class Kind(StrEnum):
    """What is done to the target. All but `kill` last a while and are undone."""

    KILL = "kill"
    STOP_BRIEFLY = "stop-briefly"
    """For less than the dead-man time."""
    STOP = "stop"
    """For longer than the dead-man time, shorter than a lease."""
    OUTLIVE = "outlive"
    """Stopped for longer than a lease."""
    OUT_OF_MEMORY = "out-of-memory"
    """A memory cgroup without a byte to give: the kernel kills."""
    MEMORY_REFUSED = "memory-refused"
    """The address space may not grow: allocations fail instead."""
    THROTTLE = "throttle"
    """A tenth of a CPU."""
    DESCRIPTORS = "descriptors"
    """No descriptor more than it has."""
    DISK_FULL = "disk-full"
    DISK_READ_ONLY = "disk-read-only"
    CORRUPT = "corrupt"
    SOCKET_REMOVED = "socket-removed"
    SOCKET_REPLACED = "socket-replaced"
    CLOCK = "clock"
    """The authority's wall clock is hours off."""
    EVENTS_OVERRUN = "events-overrun"
    """More file events than the kernel keeps, while the measurer is stopped."""
    NOTHING = "nothing"
    """Only the drift, without a fault."""


class Moment(StrEnum):
    """Where in a round of the target the fault strikes."""

    IDLE = "between rounds"
    MEASURING = "while measuring"
    ANSWERING = "while the authority answers"
    SERVING = "while serving"


@dataclass(frozen=True, slots=True)
class Fault:
    """number: from 1. side: whose process; empty for the authority. seconds: how long it lasts.

    drift: a page of that side is modified right after the fault began, and put back after it ended.
    """

    number: int
    kind: Kind
    target: Target
    side: str
    moment: Moment
    seconds: float
    drift: bool = False

    @property
    def name(self) -> str:
        """Of its kind, for figures: target and what is done to it."""
        return f"{self.target} {self.kind}{' and drift' if self.drift else ''}"

    def __str__(self) -> str:
        whose = f"{self.side} " if self.side else ""
        lasts = f" for {self.seconds:.2f} s" if self.seconds else ""
        return f"{whose}{self.name}{lasts}, {self.moment}"


@dataclass(frozen=True, slots=True)
class Case:
    """weight: how often it is drawn. least, most: seconds. root: only root can bring it about."""

    kind: Kind
    target: Target
    weight: int
    least: float = 0.0
    most: float = 0.0
    drift: bool = False
    root: bool = False


def catalogue(terms: Terms) -> tuple[Case, ...]:
    """Every case. Cheap ones are drawn more often, so that a thousand faults take an hour and not a day."""
    brief = (0.05, 0.4 * terms.deadman)
    beyond = (terms.deadman + 0.5, terms.deadman + 1.2)
    outlive = (terms.freshness + 1.0, terms.freshness + 1.5)
    window = (0.8, 1.6)
    processes = (Target.SIDECAR, Target.MEASURER, Target.ENVOY, Target.AUTHORITY, Target.WORKLOAD)
    ours = (Target.SIDECAR, Target.MEASURER, Target.AUTHORITY)
    return (
        *(Case(Kind.KILL, target, 6) for target in processes),
        *(Case(Kind.STOP_BRIEFLY, target, 7, *brief) for target in (*processes, Target.SIDE)),
        *(Case(Kind.STOP, target, 3, *beyond) for target in (*processes, Target.SIDE)),
        Case(Kind.OUTLIVE, Target.AUTHORITY, 1, *outlive),
        *(Case(Kind.OUT_OF_MEMORY, target, 1, *window, root=True) for target in processes),
        *(Case(Kind.MEMORY_REFUSED, target, 1, *window) for target in ours),
        *(Case(Kind.THROTTLE, target, 1, *window, root=True) for target in processes),
        *(Case(Kind.DESCRIPTORS, target, 2, *window) for target in (*ours, Target.ENVOY)),
        *(Case(Kind.DESCRIPTORS, target, 2, *window, drift=True) for target in (Target.SIDECAR, Target.MEASURER)),
        *(Case(Kind.DISK_FULL, target, 2, *window, root=True) for target in (Target.SIDECAR, Target.AUTHORITY)),
        *(Case(Kind.DISK_READ_ONLY, target, 1, *window, root=True) for target in (Target.SIDECAR, Target.AUTHORITY)),
        *(Case(Kind.CORRUPT, target, 1, *window) for target in (Target.SIDECAR, Target.AUTHORITY)),
        *(Case(Kind.SOCKET_REMOVED, target, 1, *window) for target in (Target.SIDECAR, Target.AUTHORITY)),
        Case(Kind.SOCKET_REPLACED, Target.SIDECAR, 1, *window),
        Case(Kind.CLOCK, Target.AUTHORITY, 2, *window),
        Case(Kind.EVENTS_OVERRUN, Target.MEASURER, 1, 0.0, 0.0),
        Case(Kind.NOTHING, Target.WORKLOAD, 4, *window, drift=True),
        *(Case(Kind.STOP, target, 2, *window, drift=True) for target in (Target.ENVOY, Target.AUTHORITY)),
        Case(Kind.MEMORY_REFUSED, Target.SIDECAR, 1, *window, drift=True),
        Case(Kind.THROTTLE, Target.ENVOY, 1, *window, drift=True, root=True),
    )


def faults(seed: int, count: int, terms: Terms, *, root: bool, sides: Sequence[str] = ("web", "db")) -> list[Fault]:
    """The first `count` faults of this seed. root: whether those that need root are among them."""
    cases = [case for case in catalogue(terms) if root or not case.root]
    return [_fault(number, random.Random(f"{seed}/{number}"), cases, sides) for number in range(1, count + 1)]  # noqa: S311 - repeatable on purpose


def _fault(number: int, chance: random.Random, cases: Sequence[Case], sides: Sequence[str]) -> Fault:
    """Each from a seed of its own, so that one can be had without those before it."""
    (case,) = chance.choices(cases, [case.weight for case in cases])
    whose = chance.choice(sides)
    return Fault(
        number,
        case.kind,
        case.target,
        "" if case.target is Target.AUTHORITY and not case.drift else whose,
        chance.choice(tuple(Moment)),
        round(chance.uniform(case.least, case.most), 3),
        case.drift,
    )
