"""What must happen to traffic under each fault, and what did: the judge of `bench faults`. Pure.

Closed means what docs/adr/0007 says: a request leaked when it began while traffic had to be closed and was answered
before the opening began. Traffic has to be closed, on the side concerned, from the earliest of

- the moment its sidecar reported the closing,
- the dead-man time and GRACE after its sidecar, measurer or workload ended,
- the end that the fault itself demands (`Expectation.closed_within`)

until its sidecar is fresh again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from proofbeat.bench.faults.plan import Fault, Kind, Target
from proofbeat.demo.layout import Terms
from proofbeat.demo.ledger import Closure
from proofbeat.demo.load import Record
from sidecar.heartbeat import BEATS

GRACE = 0.1
"""Seconds beyond the dead-man time within which the guardian has closed everything."""
AHEAD = 4
"""Intervals by which an authority has to be back before a lease's end: its nonce came with the round before, and the
next round has to be had."""
SEEN_WITHIN = 1.0
"""Seconds from a drift to the end of the last request that may still be answered: far more than it takes, because the
machine is being starved at the same time."""


class Lease(StrEnum):
    HOLDS = "holds"
    """Neither side may leave `fresh`."""
    ENDS = "ends"
    EITHER = "either"
    """Closing is right and so is going on; nothing may leak."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """closed_within: seconds from the fault's beginning until its side must be closed; None where nothing is demanded.

    traffic_holds: no request may be refused either.
    """

    lease: Lease
    closed_within: float | None = None
    traffic_holds: bool = False


def expected(fault: Fault, terms: Terms) -> Expectation:
    """The table. A kind that is not in it may close or not, and must not leak."""
    dead = terms.deadman + GRACE
    if fault.drift:
        return Expectation(Lease.ENDS, _seen(fault, terms) + SEEN_WITHIN)
    held, ended = Expectation(Lease.HOLDS, traffic_holds=True), Expectation(Lease.ENDS, dead)
    match fault.kind, fault.target:
        case Kind.KILL, Target.SIDECAR | Target.MEASURER | Target.WORKLOAD:
            return ended
        case Kind.KILL, Target.AUTHORITY:
            return held
        case Kind.KILL | Kind.STOP, Target.ENVOY | Target.WORKLOAD:
            return Expectation(Lease.HOLDS)
        case Kind.STOP_BRIEFLY, _:
            return held
        case Kind.STOP, Target.AUTHORITY:
            return held
        case Kind.STOP, Target.SIDECAR:
            return ended
        case Kind.STOP, Target.MEASURER:
            # Found out by the first heartbeat after the dead-man time.
            return Expectation(Lease.ENDS, dead + terms.deadman / BEATS)
        case Kind.STOP, Target.SIDE:
            # Nobody is there to answer, and nobody to close; both count from when the side runs again.
            return Expectation(Lease.ENDS, fault.seconds + dead)
        case Kind.OUTLIVE, _:
            return Expectation(Lease.ENDS, terms.freshness + dead)
        case Kind.EVENTS_OVERRUN, _:
            return Expectation(Lease.ENDS)
        case Kind.SOCKET_REMOVED | Kind.SOCKET_REPLACED, _:
            return held
        case _:
            return Expectation(Lease.EITHER)


def _seen(fault: Fault, terms: Terms) -> float:
    """Seconds from the fault until somebody can see the drift and close for it."""
    if fault.kind in (Kind.MEMORY_REFUSED, Kind.DESCRIPTORS, Kind.THROTTLE):
        return terms.deadman + GRACE  # who can do nothing any more is found out by the dead-man time
    return 0.0


@dataclass(frozen=True, slots=True)
class SideStory:
    """One side during a fault; moments in CLOCK_BOOTTIME seconds.

    closed: when its sidecar reported a closing. died: when its sidecar, measurer or workload ended. left: when it
    left `fresh`. fresh: when it became fresh.
    """

    closed: tuple[float, ...] = ()
    died: tuple[float, ...] = ()
    left: tuple[float, ...] = ()
    fresh: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """What happened from a fault's beginning until everything was judged to flow again, or was given up.

    restored: when the fault was undone. recovered: did all of it flow again in the end? away: seconds that the
    authority was not there; how long its restart takes is this machine's affair, not the fault's.
    """

    began: float
    restored: float
    recovered: bool
    ended: float
    sides: Mapping[str, SideStory]
    records: Sequence[Record]
    away: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The judgement. lost: a lease ended that had to hold; kept: one held that had to end. refused: requests refused
    although traffic had to hold. outage, recovery, closing: seconds.

    outage: from the first refusal until all flows were served again. recovery: from the end of the fault.
    closing: from the fault to the last request answered before its side was opened again, where it had to close.
    """

    fault: Fault
    leaked: tuple[tuple[Record, Closure], ...]
    lost: bool
    refused: int
    kept: bool
    outage: float
    recovery: float | None
    closing: float | None

    @property
    def holds(self) -> bool:
        return not (self.leaked or self.lost or self.refused or self.kept) and self.recovery is not None


def judge(fault: Fault, story: Story, terms: Terms) -> Finding:
    """One fault, judged."""
    wanted = expected(fault, terms)
    if wanted.lease is Lease.HOLDS and story.away > terms.freshness - AHEAD * terms.interval:
        wanted = Expectation(Lease.EITHER)
    closures = _closures(fault, wanted, story, terms)
    leaked = {record: each for each in closures for record in story.records if each.forbids(record)}
    left = any(side.left or side.died for side in story.sides.values())
    refusals = [record for record in story.records if not record.served and record.began >= story.began]
    return Finding(
        fault,
        leaked=tuple(leaked.items()),
        lost=wanted.lease is Lease.HOLDS and left,
        refused=len(refusals) if wanted.traffic_holds else 0,
        kept=wanted.lease is Lease.ENDS and not left,
        outage=_back(story) - min(record.began for record in refusals) if refusals else 0.0,
        recovery=max(0.0, _back(story) - story.restored) if story.recovered else None,
        closing=_closing(fault, story) if wanted.lease is Lease.ENDS and left else None,
    )


def _closures(fault: Fault, wanted: Expectation, story: Story, terms: Terms) -> list[Closure]:
    found = []
    for name, side in story.sides.items():
        demands = [(moment, moment) for moment in side.closed]
        demands += [(moment, moment + terms.deadman + GRACE) for moment in side.died]
        if wanted.closed_within is not None and fault.side in ("", name):
            demands.append((story.began, story.began + wanted.closed_within))
        found += [Closure(closed, _opening(side, since, story.ended)) for since, closed in demands]
    return [each for each in found if each.closed < each.opened]


def _opening(side: SideStory, since: float, ended: float) -> float:
    return next((moment for moment in side.fresh if moment >= since), ended)


def _back(story: Story) -> float:
    """When the last flow was served again after its last refusal; the fault's beginning when none was refused."""
    back, waiting = story.began, set[int]()
    for record in story.records:
        if not record.served:
            waiting.add(record.flow)
        elif record.flow in waiting:
            waiting.discard(record.flow)
            back = record.ended
    return story.ended if waiting else back


def _closing(fault: Fault, story: Story) -> float:
    opened = max(_opening(side, story.began, story.ended) for side in story.sides.values() if side.left or side.died)
    served = (record.ended for record in story.records if record.served and record.ended < opened)
    return max(0.0, max(served, default=story.began) - story.began)
