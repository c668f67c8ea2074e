"""The words of the machine that decides whether traffic may flow: its states, events and commands.

What follows from what is in sidecar/freshness.py. No I/O and no clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from attestation.drift import Drift
from attestation.trust import Tier
from attestation.violation import Violation
from policies.model.policy import Mode, Recovery

MOST_CAUSES = 32
"""Causes kept for the reader; the newest one's time is kept apart, so that forgetting the oldest opens nothing."""

MOST_STICKY = 64
"""Sticky causes kept. Beyond it the newest takes the last place, so that no earlier release covers it."""


class Phase(StrEnum):
    UNATTESTED = "unattested"
    FRESH = "fresh"
    STALE = "stale"
    QUARANTINED = "quarantined"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Now:
    """boot: CLOCK_BOOTTIME seconds, which counts through a suspend. wall: CLOCK_REALTIME seconds, which can be set."""

    boot: float
    wall: float


@dataclass(frozen=True, slots=True)
class Lease:
    """The period of one result. It ends at the earlier of its two ends; skew was subtracted, never added.

    affirmed: False for what was handed out although the appraisal did not affirm: in audit, or with warnings. waived:
    the id of the break-glass order that it rests on; empty for one that was earned. held: drift was found under it, and
    the authority holds it open.
    """

    number: int
    boot_end: float
    wall_end: float
    affirmed: bool = True
    waived: str = ""
    held: bool = False

    def over(self, now: Now) -> bool:
        return now.boot >= self.boot_end or now.wall >= self.wall_end


@dataclass(frozen=True, slots=True)
class Waiver:
    """A break-glass order that holds for this instance. It ends at the earlier of its two ends."""

    id: str
    boot_end: float
    wall_end: float

    def over(self, now: Now) -> bool:
        return now.boot >= self.boot_end or now.wall >= self.wall_end

    def bounds(self, lease: Lease) -> Lease:
        """The lease as it rests on this order."""
        ends = min(lease.boot_end, self.boot_end), min(lease.wall_end, self.wall_end)
        return Lease(lease.number, *ends, affirmed=False, waived=self.id)


@dataclass(frozen=True, slots=True)
class Flaps:
    """More drift closings than `count` within so many seconds, and drift is no longer healed by a measurement."""

    count: int
    within: float


@dataclass(frozen=True, slots=True)
class Rules:
    """What policy says about closing and recovering. minimum_closed: seconds.

    holds: drift asks before it closes. patience: seconds within which that has to be answered.
    """

    mode: Mode = Mode.ENFORCE
    drift: Recovery = Recovery.AUTO
    tamper: Recovery = Recovery.REPLACE
    minimum_closed: float = 0.0
    flaps: Flaps | None = None
    serves_warnings: bool = False
    holds: bool = False
    patience: float = 0.25

    @property
    def looks_back(self) -> bool:
        """Does it matter when traffic was closed before?"""
        return self.minimum_closed > 0 or self.flaps is not None


@dataclass(frozen=True, slots=True)
class Sticky:
    """A cause that no measurement heals, with the generation it began: the pair names it to the authority."""

    generation: int
    violation: Violation


@dataclass(frozen=True, slots=True)
class Closings:
    """latest: when the latest quarantine began. drift: when drift closed what was open, the latest last. In seconds of
    CLOCK_BOOTTIME.
    """

    latest: float = -inf
    drift: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """Whether this stays open in spite of drift, asked of the authority.

    number: the generation that began with it. until: CLOCK_BOOTTIME, seconds; without an answer by then it closes.
    drifts: all that is known. untold: what was seen, to be reported once the question is over.
    """

    number: int
    until: float
    drifts: frozenset[Drift]
    untold: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """causes: the latest violations since the last opening. contradicted_at: when the newest of them all happened
    (CLOCK_BOOTTIME). sticky: those that only a release heals. waiver: the order in force, if there is one.

    closings: those that policy still looks back at. kept: a result that opens when `minimum_closed` is over. question:
    the one that waits for its answer. drifts: those that the authority said are held.
    """

    rules: Rules
    phase: Phase = Phase.UNATTESTED
    generation: int = 0
    sequence: int = -1
    lease: Lease | None = None
    causes: tuple[Violation, ...] = ()
    contradicted_at: float = -inf
    sticky: tuple[Sticky, ...] = ()
    waiver: Waiver | None = None
    closings: Closings = Closings()
    kept: Appraised | None = None
    question: Question | None = None
    drifts: frozenset[Drift] = frozenset()

    @property
    def open(self) -> bool:
        """May traffic flow under this identity?"""
        return self.phase is Phase.FRESH

    @property
    def warned(self) -> bool:
        """Is it open by a result that had warnings, or in spite of drift that is held or asked about?"""
        enforcing = self.rules.mode is Mode.ENFORCE
        warned = self.lease is not None and not (self.lease.affirmed or self.lease.waived)
        return enforcing and self.open and (warned or self.question is not None)

    @property
    def held(self) -> bool:
        """Is it open in spite of drift, for the authority said so?"""
        return self.rules.mode is Mode.ENFORCE and self.open and self.lease is not None and self.lease.held

    @property
    def contested(self) -> bool:
        """Is it held, or is that being asked?"""
        asked = self.rules.mode is Mode.ENFORCE and self.open and self.question is not None
        return self.held or asked

    @property
    def excepted(self) -> bool:
        """Is it open by a break-glass order alone?"""
        return self.open and self.lease is not None and bool(self.lease.waived)


# Events.


@dataclass(frozen=True, slots=True)
class Violated:
    """A fact contradicts policy."""

    violation: Violation


@dataclass(frozen=True, slots=True)
class Appraised:
    """The authority's answer to one round.

    generation, sequence: as the evidence signed them. measured_from: CLOCK_BOOTTIME when the *oldest* full
    measurement of a required layer began. lease: None where the result gave no identity. waived: it is marked with an
    order that is known to hold here. held: it is marked as held.
    """

    tier: Tier
    generation: int
    sequence: int
    measured_from: float
    lease: Lease | None
    cause: Violation | None = None
    waived: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """To a question, by its number: stay open, or not. No answer in time is a no."""

    number: int
    held: bool


@dataclass(frozen=True, slots=True)
class HoldOver:
    """The authority holds this open no longer."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """The authority quarantined this instance."""

    cause: Violation


@dataclass(frozen=True, slots=True)
class Released:
    """A verified release order. generations: those of the sticky causes that it names; others stay."""

    generations: frozenset[int]


@dataclass(frozen=True, slots=True)
class Stalled:
    """Time passed that nobody vouches for: a clock step, a restored machine, a loop that stood still, a fired guard."""

    reason: str


@dataclass(frozen=True, slots=True)
class MeasurerLost:
    """The measurer's process or channel ended: nobody watches the workload."""

    cause: Violation


@dataclass(frozen=True, slots=True)
class Ticked:
    """Nothing but time passed."""


@dataclass(frozen=True, slots=True)
class WorkloadEnded:
    """The instance's first process is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """A newer policy."""

    rules: Rules


@dataclass(frozen=True, slots=True)
class Waived:
    """Another break-glass order is in force here now, or none."""

    waiver: Waiver | None


Event = (
    Violated
    | Appraised
    | Answered
    | HoldOver
    | Revoked
    | Released
    | Stalled
    | MeasurerLost
    | Ticked
    | WorkloadEnded
    | RulesChanged
    | Waived
)

# Commands.


@dataclass(frozen=True, slots=True)
class Count:
    """Keep these closings for the next run of this program."""

    closings: Closings


@dataclass(frozen=True, slots=True)
class Keep:
    """A result came that opens later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Latch:
    """Write this cause where kill -9 does not wash it off."""

    cause: Sticky


@dataclass(frozen=True, slots=True)
class Ask:
    """Put this to the authority, in place of what was asked before."""

    question: Question


@dataclass(frozen=True, slots=True)
class Close:
    """Refuse new connections, deny requests, cut open ones. cause: the violation that it is for, if any."""

    reason: str
    cause: Violation | None = None


@dataclass(frozen=True, slots=True)
class Serve:
    """Hand this lease's identity to Envoy."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the authority. generation: the one this violation began."""

    generation: int
    violation: Violation


@dataclass(frozen=True, slots=True)
class Reattest:
    """A round now. full: with everything read anew."""

    full: bool


@dataclass(frozen=True, slots=True)
class WouldHave:
    """What enforce would have closed for; kept for the operators of observe and audit."""

    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """An answer that came too late or out of order was not used."""

    reason: str


Command = Latch | Ask | Close | Serve | Report | Reattest | WouldHave | Drop | Count | Keep


@dataclass(frozen=True, slots=True)
class Step:
    state: State
    commands: tuple[Command, ...] = ()
