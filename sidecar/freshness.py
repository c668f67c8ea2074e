"""The pure machine that decides whether traffic may flow.

The invariant it holds: traffic flows under an instance's mesh identity at time t only if

  (a) an appraisal affirmed, in `enforce`, evidence whose nonce was issued at t0; or had no more than warnings of it,
      where policy says `warnings: serve`,
  (b) t < t0 + freshness, and
  (c) nothing observed since then contradicts it.

Whatever is late, lost, malformed, unknown or crashed closes traffic and never opens it.

The one written exception is break-glass: while a `Waiver` is in force (an order that enough operators signed, verified
here, until the earlier of its two ends), drift that is seen does not close, and a result that shows nothing but drift
opens, if the authority let it through. Its lease is marked and ends with the waiver; then, whatever was found meanwhile
closes. (b) holds all the same, and no tamper, no lost watcher and no stall is ever waived.

Phases            traffic  entered by
  UNATTESTED      closed   start
  FRESH           open     an affirming result of the current generation
  STALE           closed   lease end, clock anomaly, a stall; an affirming result opens again
  QUARANTINED     closed   violation, contraindicated result, revocation, the measurer lost
  ENDED           closed   the workload's end; final

A violation bumps the generation, which evidence signs: a result for an older generation is dropped. DRIFT is
healed by an affirming full measurement that began after the cause. TAMPER is healed by a new instance, or by a
signed release that names the instance and the causes, and that came after the last of them. Policy says of each class
which of the two it takes; of drift that closes too often, it is always the second.

A quarantine lasts `minimum_closed` at least. A result that would open before that is kept, and opens when the time is
over if nothing has happened meanwhile that makes it void.

In `observe` and `audit` no sequence of events closes traffic: each closing is recorded as a would-have.

No I/O and no clocks: events and `Now` in, a new state and commands out. The commands of one step are to be carried
out in order; their order is part of the decision (a latch before the closing, the closing before the report).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from attestation.layers import Layer
from attestation.quantities import duration
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import Violation
from policies.appraise.breakglass import waives_violation
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
    the id of the break-glass order that it rests on; empty for one that was earned.
    """

    number: int
    boot_end: float
    wall_end: float
    affirmed: bool = True
    waived: str = ""

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
    """What policy says about closing and recovering. minimum_closed: seconds."""

    mode: Mode = Mode.ENFORCE
    drift: Recovery = Recovery.AUTO
    tamper: Recovery = Recovery.REPLACE
    minimum_closed: float = 0.0
    flaps: Flaps | None = None
    serves_warnings: bool = False

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
class State:
    """causes: the latest violations since the last opening. contradicted_at: when the newest of them all happened
    (CLOCK_BOOTTIME). sticky: those that only a release heals. waiver: the order in force, if there is one.

    closings: those that policy still looks back at. kept: a result that opens when `minimum_closed` is over.
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

    @property
    def open(self) -> bool:
        """May traffic flow under this identity?"""
        return self.phase is Phase.FRESH

    @property
    def warned(self) -> bool:
        """Is it open by a result that had warnings?"""
        enforcing = self.rules.mode is Mode.ENFORCE
        return enforcing and self.open and self.lease is not None and not (self.lease.affirmed or self.lease.waived)

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
    order that is known to hold here.
    """

    tier: Tier
    generation: int
    sequence: int
    measured_from: float
    lease: Lease | None
    cause: Violation | None = None
    waived: bool = False


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
    Violated | Appraised | Revoked | Released | Stalled | MeasurerLost | Ticked | WorkloadEnded | RulesChanged | Waived
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


Command = Latch | Close | Serve | Report | Reattest | WouldHave | Drop | Count | Keep


@dataclass(frozen=True, slots=True)
class Step:
    state: State
    commands: tuple[Command, ...] = ()


def step(state: State, event: Event, now: Now) -> Step:
    """The next state and what to do, in order. Total: every event is legal in every state."""
    if state.phase is Phase.ENDED:
        return Step(state)
    over = _end_of_waiver(state, now)
    late = _end_of_lease(over.state, now)
    decided = _decide(late.state, event, now)
    return _remembered(Step(decided.state, over.commands + late.commands + decided.commands), now)


def _end_of_lease(state: State, now: Now) -> Step:
    if state.lease is None or not state.open or not state.lease.over(now):
        return Step(state)
    return _leave(state, Phase.STALE, "lease-ended", Reattest(full=False))


def _decide(state: State, event: Event, now: Now) -> Step:
    match event:
        case Violated(violation) if _waives(state, violation):
            return _noted(state, violation)
        case Violated(violation):
            return _violated(state, violation, now, report=True)
        case Revoked(cause):
            return _violated(state, cause, now, report=False)
        case MeasurerLost(cause):
            return _violated(state, cause, now, report=True)
        case Appraised():
            return _appraised(state, event, now)
        case Released(generations):
            return _released(state, generations)
        case Stalled(reason):
            return _stalled(state, reason)
        case WorkloadEnded(reason):
            return _ended(state, reason)
        case RulesChanged(rules):
            return _rules_changed(state, rules)
        case Waived(waiver):
            return _waiver_changed(state, waiver, now)
        case Ticked():
            return _due(state, now)


def _violated(state: State, violation: Violation, now: Now, *, report: bool) -> Step:
    flaps = state.rules.flaps
    if flaps is None or violation.tamper or not state.open or state.rules.mode is not Mode.ENFORCE:
        return _contradicted(state, violation, report=report)
    recent = (*(at for at in state.closings.drift if at > now.boot - flaps.within), now.boot)[-flaps.count - 1 :]
    closed = _contradicted(replace(state, closings=Closings(now.boot, recent)), violation, report=report)
    if len(recent) <= flaps.count or closed.state.sticky:
        return closed
    flapping = _contradicted(closed.state, _flapping(flaps, violation, now), report=True)
    latches = tuple(each for each in flapping.commands if isinstance(each, Latch))
    others = (*closed.commands, *flapping.commands)
    return Step(flapping.state, (*latches, *(each for each in others if not isinstance(each, Latch | Reattest))))


def _flapping(flaps: Flaps, latest: Violation, now: Now) -> Violation:
    return Violation(
        Signal.FLAPPING,
        Signal.FLAPPING.default,
        Layer.ATTESTER,
        "instance",
        f"drift closed it more than {flaps.count} times in {duration(flaps.within)}; the latest: {latest.text}",
        now.boot,
        latest.rule,
        "Find out what keeps changing it; then start a new instance, or have an operator release this one.",
    )


def _contradicted(state: State, violation: Violation, *, report: bool) -> Step:
    """Latch, close, report, re-attest: in this order.

    While quarantined, only what is graver than before closes again: ten thousand files removed at once are one
    closing, and no more than MOST_CAUSES reports.
    """
    generation, sticky = state.generation + 1, _is_sticky(state.rules, violation)
    marked = replace(
        state,
        generation=generation,
        causes=(*state.causes, violation)[-MOST_CAUSES:],
        contradicted_at=max(state.contradicted_at, violation.at),
        sticky=(*state.sticky[: MOST_STICKY - 1], Sticky(generation, violation)) if sticky else state.sticky,
    )
    latch = (Latch(marked.sticky[-1]),) if sticky else ()
    known = state.phase is Phase.QUARANTINED and (not sticky or bool(state.sticky))
    closing = Step(marked) if known else _leave_for(marked, violation)
    told = report and (sticky or len(state.causes) < MOST_CAUSES)
    after: tuple[Command, ...] = (Report(generation, violation),) if told else ()
    again: tuple[Command, ...] = () if marked.sticky else (Reattest(full=True),)
    return Step(closing.state, latch + closing.commands + after + again)


def _is_sticky(rules: Rules, violation: Violation) -> bool:
    """What the authority found by itself is latched by the order that it sends, under the name that it has there."""
    recovery = rules.tamper if violation.tamper else rules.drift
    lasting = recovery is not Recovery.AUTO and violation.kind != Signal.CONTRAINDICATED
    return rules.mode is Mode.ENFORCE and (lasting or violation.kind == Signal.FLAPPING)


def _leave_for(state: State, violation: Violation) -> Step:
    return _leave(state, Phase.QUARANTINED, f"{violation.kind}: {violation.subject}", cause=violation)


def _leave(state: State, phase: Phase, reason: str, *after: Command, cause: Violation | None = None) -> Step:
    """Close, also where another phase was closed already. Never where policy does not enforce."""
    if state.rules.mode is not Mode.ENFORCE:
        return Step(state, (WouldHave(reason), *after))
    # A quarantine is not softened by a lease that ends meanwhile.
    settled = state.phase if state.phase is Phase.QUARANTINED and phase is Phase.STALE else phase
    return Step(replace(state, phase=settled, lease=None), (Close(reason, cause), *after))


def _appraised(state: State, result: Appraised, now: Now) -> Step:
    if result.sequence <= state.sequence:
        return Step(state, (Drop(f"result {result.sequence} is not newer than {state.sequence}"),))
    seen = replace(state, sequence=result.sequence, kept=None)
    if result.generation != state.generation:
        return Step(seen, (Drop(f"result for generation {result.generation}, now {state.generation}"),))
    if result.waived and _lets_through(seen, result.tier):
        return _excepted(seen, result, now)
    if result.tier is Tier.CONTRAINDICATED and state.rules.mode is not Mode.AUDIT:
        return _contraindicated(seen, result.cause, now)
    if result.lease is None or not _identity_given(state.rules, result.tier):
        return Step(seen, (Drop(f"a result of tier {result.tier.label} gives no identity"),))
    return _affirmed(seen, result, result.lease, now)


def _identity_given(rules: Rules, tier: Tier) -> bool:
    served = tier is Tier.WARNING and rules.serves_warnings
    return tier is Tier.AFFIRMING or served or rules.mode is Mode.AUDIT


def _contraindicated(state: State, cause: Violation | None, now: Now) -> Step:
    """The authority has recorded it itself. A cause it has told us before closes nothing twice."""
    if cause is None:
        return _leave(replace(state, generation=state.generation + 1), Phase.QUARANTINED, "contraindicated")
    if any((known.kind, known.subject) == (cause.kind, cause.subject) for known in state.causes):
        return Step(state, (Drop(f"still contraindicated: {cause.kind}: {cause.subject}"),))
    return _violated(state, cause, now, report=False)


def _affirmed(state: State, result: Appraised, lease: Lease, now: Now) -> Step:
    enforcing = state.rules.mode is Mode.ENFORCE
    if lease.over(now):
        return Step(state, (Drop("the lease was over when it arrived"),))
    if enforcing and state.sticky:
        return Step(state, (Drop("tampered with: only a new instance or a release opens this one"),))
    if enforcing and state.causes and result.measured_from <= state.contradicted_at:
        return Step(state, (Drop("measured before the cause"), Reattest(full=True)))
    left = _closed_for(state, now)
    if enforcing and left > 0:
        return Step(replace(state, kept=result), (Keep(left),))
    opened = replace(state, phase=Phase.FRESH, lease=lease, causes=(), contradicted_at=-inf)
    if lease.affirmed or enforcing:
        return Step(opened, (Serve(lease),))
    kept = replace(opened, causes=state.causes, contradicted_at=state.contradicted_at)
    return Step(kept, (Serve(lease), WouldHave(f"appraised {result.tier.label}")))


def _closed_for(state: State, now: Now) -> float:
    """Seconds for which policy keeps it closed, whatever comes."""
    if state.open:
        return 0.0
    return state.closings.latest + state.rules.minimum_closed - now.boot


def _due(state: State, now: Now) -> Step:
    """What was kept opens as if it came now."""
    kept = state.kept
    if kept is None or kept.lease is None or _closed_for(state, now) > 0:
        return Step(state)
    later = replace(state, kept=None)
    return _affirmed(later, kept, kept.lease, now) if kept.generation == state.generation else Step(later)


def _remembered(decided: Step, now: Now) -> Step:
    """When a quarantine began, for as long as policy looks back at it."""
    state = decided.state
    if state.phase is not Phase.QUARANTINED or not any(isinstance(each, Close) for each in decided.commands):
        return decided
    marked = replace(state, closings=replace(state.closings, latest=now.boot), kept=None)
    told = (Count(marked.closings),) if state.rules.looks_back else ()
    return Step(marked, decided.commands + told)


def _rules_changed(state: State, rules: Rules) -> Step:
    """Going over to enforce closes what enforce would not have opened, and latches what it would have latched."""
    ruled = replace(state, rules=rules, kept=None)
    if state.warned and rules.mode is Mode.ENFORCE and not rules.serves_warnings:
        return _leave(ruled, Phase.STALE, "not-affirmed", Reattest(full=True))
    if rules.mode is not Mode.ENFORCE or state.rules.mode is Mode.ENFORCE:
        return Step(ruled)
    ruled, latches = _latching(ruled)
    if state.causes:
        closing = _leave_for(ruled, state.causes[-1])
    elif ruled.sticky:
        closing = _leave_for(ruled, ruled.sticky[-1].violation)
    elif state.lease is not None and not state.lease.affirmed:
        closing = _leave(ruled, Phase.STALE, "not-affirmed")
    else:
        return Step(ruled)
    after = () if ruled.sticky else (Reattest(full=True),)
    return Step(closing.state, (*latches, *closing.commands, *_binding(latches), *after))


def _latching(state: State) -> tuple[State, tuple[Latch, ...]]:
    """What had let the causes so far pass does so no longer: each that would have been latched is."""
    known = {each.violation for each in state.sticky}
    late = (cause for cause in state.causes if cause not in known and _is_sticky(state.rules, cause))
    added = tuple(Sticky(state.generation, cause) for cause in late)
    kept = (*state.sticky, *added)
    bounded = kept if len(kept) <= MOST_STICKY else (*kept[: MOST_STICKY - 1], kept[-1])
    return replace(state, sticky=bounded), tuple(map(Latch, added))


def _binding(latches: tuple[Latch, ...]) -> tuple[Report, ...]:
    """What was reported while it did not bind is told once more: only what binds there can be released there."""
    return tuple(Report(each.cause.generation, each.cause.violation) for each in latches)


def _released(state: State, generations: frozenset[int]) -> Step:
    """A release heals what it names and nothing later; traffic opens by a full measurement, as after any drift."""
    left = tuple(each for each in state.sticky if each.generation not in generations)
    if len(left) == len(state.sticky):
        return Step(state, (Drop("the release names no cause of this instance"),))
    freed = replace(state, sticky=left, generation=state.generation + 1)
    if left:
        return Step(freed)
    forgiven = replace(freed, closings=replace(freed.closings, drift=()))
    told = (Count(forgiven.closings),) if forgiven.closings != freed.closings else ()
    return Step(forgiven, (*told, Reattest(full=True)))


def _stalled(state: State, reason: str) -> Step:
    """What was measured before the gap says nothing about it: a new generation, so that no earlier result opens."""
    if state.rules.mode is not Mode.ENFORCE:
        return Step(state, (WouldHave(reason), Reattest(full=True)))
    bumped = replace(state, generation=state.generation + 1)
    if not state.open:
        return Step(bumped, (Reattest(full=True),))
    return _leave(bumped, Phase.STALE, reason, Reattest(full=True))


def _ended(state: State, reason: str) -> Step:
    over = replace(state, phase=Phase.ENDED, lease=None)
    if state.rules.mode is not Mode.ENFORCE:
        return Step(over, (WouldHave(reason),))
    return Step(over, (Close(reason),))


# The exception.


def _waives(state: State, violation: Violation) -> bool:
    enforcing = state.rules.mode is Mode.ENFORCE
    return enforcing and state.open and state.waiver is not None and waives_violation(violation)


def _noted(state: State, violation: Violation) -> Step:
    """Reported and attested like any other; what is open rests on the order from now on."""
    assert state.lease is not None and state.waiver is not None  # noqa: S101 - `_waives` has seen both
    generation, lease = state.generation + 1, state.waiver.bounds(state.lease)
    marked = replace(
        state,
        generation=generation,
        causes=(*state.causes, violation)[-MOST_CAUSES:],
        contradicted_at=max(state.contradicted_at, violation.at),
        lease=lease,
    )
    served: tuple[Command, ...] = (Serve(lease),) if lease != state.lease else ()
    told: tuple[Command, ...] = (Report(generation, violation),) if len(state.causes) < MOST_CAUSES else ()
    would_have = WouldHave(f"{violation.kind}: {violation.subject}")
    return Step(marked, (*served, would_have, *told, Reattest(full=True)))


def _lets_through(state: State, tier: Tier) -> bool:
    enforcing = state.rules.mode is Mode.ENFORCE
    return enforcing and state.waiver is not None and tier in (Tier.WARNING, Tier.CONTRAINDICATED)


def _excepted(state: State, result: Appraised, now: Now) -> Step:
    """As `_affirmed`, on an order: what was found is kept, and closes when the order ends."""
    assert state.waiver is not None  # noqa: S101 - `_lets_through` has seen it
    if result.lease is None or result.lease.over(now):
        return Step(state, (Drop("let through, and without a lease that lasts"),))
    if state.sticky:
        return Step(state, (Drop("what is latched is waived by nobody"),))
    if state.causes and result.measured_from <= state.contradicted_at:
        return Step(state, (Drop("measured before the cause"), Reattest(full=True)))
    lease = state.waiver.bounds(result.lease)
    causes = state.causes or ((result.cause,) if result.cause is not None else ())
    opened = replace(state, phase=Phase.FRESH, lease=lease, causes=causes)
    return Step(opened, (Serve(lease), WouldHave(f"appraised {result.tier.label}")))


def _waiver_changed(state: State, waiver: Waiver | None, now: Now) -> Step:
    if waiver is None or waiver.over(now):
        return _unwaived(replace(state, waiver=None)) if state.waiver is not None else Step(state)
    changed = replace(state, waiver=waiver)
    if not state.open:
        return Step(changed, (Reattest(full=True),) if waiver != state.waiver else ())
    if state.lease is None or not state.excepted or (lease := waiver.bounds(state.lease)) == state.lease:
        return Step(changed)
    return Step(replace(changed, lease=lease), (Serve(lease),))


def _end_of_waiver(state: State, now: Now) -> Step:
    if state.waiver is None or not state.waiver.over(now):
        return Step(state)
    return _unwaived(replace(state, waiver=None))


def _unwaived(state: State) -> Step:
    """What was let pass closes, and is latched where policy says so."""
    marked, latches = _latching(state)
    if not state.excepted:
        return Step(marked, latches)
    closing = _leave_for(marked, state.causes[-1]) if state.causes else _leave(marked, Phase.STALE, "break-glass-over")
    return Step(closing.state, (*latches, *closing.commands, *_binding(latches), Reattest(full=True)))
