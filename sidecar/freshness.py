"""The pure machine that decides whether traffic may flow.

The invariant it holds: traffic flows under an instance's mesh identity at time t only if

  (a) an appraisal affirmed, in `enforce`, evidence whose nonce was issued at t0; or had no more than warnings of it,
      where policy says `warnings: serve`,
  (b) t < t0 + freshness, and
  (c) nothing observed since then contradicts it.

Whatever is late, lost, malformed, unknown or crashed closes traffic and never opens it.

One of two written exceptions is break-glass: while a `Waiver` is in force (an order that enough operators signed,
verified here, until the earlier of its two ends), drift that is seen does not close, and a result that shows nothing
but drift opens, if the authority let it through. Its lease is marked and ends with the waiver; then, whatever was found
meanwhile closes. (b) holds all the same, and no tamper, no lost watcher and no stall is ever waived.

The other exception is drift that is held back, where policy lets one drift close only a share of the instances
(`Rules.holds`). Drift then asks the authority before it closes, and stays open if an answer says so in time; any other
answer, or none, closes. It is held until a result affirms or the authority says that it is over, and never beyond its
lease, which goes on only by results that are marked. A hold keeps open what is open, and opens nothing.

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

from collections.abc import Callable
from dataclasses import replace
from math import inf

from attestation.drift import MOST_DRIFTS, Drift
from attestation.layers import Layer
from attestation.quantities import duration
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import Violation
from policies.appraise.breakglass import waives_violation
from policies.appraise.holding import drift_of
from policies.model.policy import Mode, Recovery
from sidecar.states import (
    MOST_CAUSES,
    MOST_STICKY,
    Answered,
    Appraised,
    Ask,
    Close,
    Closings,
    Command,
    Count,
    Drop,
    Event,
    Flaps,
    HoldOver,
    Keep,
    Latch,
    Lease,
    MeasurerLost,
    Now,
    Phase,
    Question,
    Reattest,
    Released,
    Report,
    Revoked,
    Rules,
    RulesChanged,
    Serve,
    Stalled,
    State,
    Step,
    Sticky,
    Ticked,
    Violated,
    Waived,
    Waiver,
    WorkloadEnded,
    WouldHave,
)


def step(state: State, event: Event, now: Now) -> Step:
    """The next state and what to do, in order. Total: every event is legal in every state."""
    if state.phase is Phase.ENDED:
        return Step(state)
    over = _end_of_waiver(state, now)
    late = _end_of_lease(over.state, now)
    unanswered = _end_of_question(late.state, now)
    decided = _decide(unanswered.state, event, now)
    commands = over.commands + late.commands + unanswered.commands + decided.commands
    return _remembered(_told(state, Step(decided.state, commands)), now)


def _end_of_lease(state: State, now: Now) -> Step:
    if state.lease is None or not state.open or not state.lease.over(now):
        return Step(state)
    return _leave(state, Phase.STALE, "lease-ended", Reattest(full=False))


def _decide(state: State, event: Event, now: Now) -> Step:
    match event:
        case Violated(violation) if _waives(state, violation):
            return _noted(state, violation)
        case Violated(violation) if (drift := _holdable(state, violation)) is not None:
            return _drifted(state, violation, drift, now)
        case Violated(violation):
            return _violated(state, violation, now, report=True)
        case Revoked(cause):
            return _violated(state, cause, now, report=False)
        case MeasurerLost(cause):
            return _violated(state, cause, now, report=True)
        case Appraised():
            return _appraised(state, event, now)
        case Answered(number, held):
            return _answered(state, number, now, held=held)
        case HoldOver():
            return _given_up(state, now) if state.contested else Step(state, (Drop("nothing is held here"),))
        case Released(generations):
            return _released(state, generations)
        case Stalled(reason):
            return _stalled(state, reason)
        case WorkloadEnded(reason):
            return _ended(state, reason)
        case RulesChanged(rules):
            return _rules_changed(state, rules, now)
        case Waived(waiver):
            return _waiver_changed(state, waiver, now)
        case Ticked():
            return _due(state, now)


def _violated(state: State, violation: Violation, now: Now, *, report: bool) -> Step:
    return _counted(state, violation, now, lambda counted: _contradicted(counted, violation, report=report))


def _counted(state: State, violation: Violation, now: Now, close: Callable[[State], Step]) -> Step:
    """Closes; and for good, where drift has done so too often."""
    flaps = state.rules.flaps
    if flaps is None or violation.tamper or not state.open or state.rules.mode is not Mode.ENFORCE:
        return close(state)
    recent = (*(at for at in state.closings.drift if at > now.boot - flaps.within), now.boot)[-flaps.count - 1 :]
    closed = close(replace(state, closings=Closings(now.boot, recent)))
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
    kept = (*state.sticky[: MOST_STICKY - 1], Sticky(generation, violation)) if sticky else state.sticky
    marked = replace(_marked(state, violation), sticky=kept)
    latch = (Latch(marked.sticky[-1]),) if sticky else ()
    known = state.phase is Phase.QUARANTINED and (not sticky or bool(state.sticky))
    closing = Step(marked) if known else _leave_for(marked, violation)
    told = report and (sticky or len(state.causes) < MOST_CAUSES)
    after: tuple[Command, ...] = (Report(generation, violation),) if told else ()
    again: tuple[Command, ...] = () if marked.sticky else (Reattest(full=True),)
    return Step(closing.state, latch + closing.commands + after + again)


def _marked(state: State, violation: Violation) -> State:
    """What was measured before knows nothing of this."""
    return replace(
        state,
        generation=state.generation + 1,
        causes=(*state.causes, violation)[-MOST_CAUSES:],
        contradicted_at=max(state.contradicted_at, violation.at),
    )


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
    return Step(replace(_uncontested(state), phase=settled, lease=None), (Close(reason, cause), *after))


def _appraised(state: State, result: Appraised, now: Now) -> Step:
    if result.sequence <= state.sequence:
        return Step(state, (Drop(f"result {result.sequence} is not newer than {state.sequence}"),))
    seen = replace(state, sequence=result.sequence, kept=None)
    if result.generation != state.generation:
        return Step(seen, (Drop(f"result for generation {result.generation}, now {state.generation}"),))
    if result.waived and _lets_through(seen, result.tier):
        return _excepted(seen, result, now)
    if result.held and state.rules.mode is Mode.ENFORCE:
        return _held(seen, result, now)
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
    known = any((known.kind, known.subject) == (cause.kind, cause.subject) for known in state.causes)
    if known and not state.contested:
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
    opened = replace(_uncontested(state), phase=Phase.FRESH, lease=lease, causes=(), contradicted_at=-inf)
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


def _rules_changed(state: State, rules: Rules, now: Now) -> Step:
    """Going over to enforce closes what enforce would not have opened, and latches what it would have latched."""
    ruled = replace(state, rules=rules, kept=None)
    if state.contested and rules.mode is Mode.ENFORCE:
        return Step(ruled) if rules.holds else _given_up(ruled, now)
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
    elif state.lease is not None and state.lease.over(now):
        closing = _leave(ruled, Phase.STALE, "lease-ended")
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


# The exceptions: an order.


def _waives(state: State, violation: Violation) -> bool:
    enforcing = state.rules.mode is Mode.ENFORCE
    return enforcing and state.open and state.waiver is not None and waives_violation(violation)


def _noted(state: State, violation: Violation) -> Step:
    """Reported and attested like any other; what is open rests on the order from now on."""
    assert state.lease is not None and state.waiver is not None  # noqa: S101 - `_waives` has seen both
    lease = state.waiver.bounds(state.lease)
    marked = replace(_marked(state, violation), lease=lease)
    served: tuple[Command, ...] = (Serve(lease),) if lease != state.lease else ()
    told: tuple[Command, ...] = (Report(marked.generation, violation),) if len(state.causes) < MOST_CAUSES else ()
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
    opened = replace(_uncontested(state), phase=Phase.FRESH, lease=lease, causes=causes)
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
    if state.contested:
        return Step(state)
    marked, latches = _latching(state)
    if not state.excepted:
        return Step(marked, latches)
    closing = _leave_for(marked, state.causes[-1]) if state.causes else _leave(marked, Phase.STALE, "break-glass-over")
    return Step(closing.state, (*latches, *closing.commands, *_binding(latches), Reattest(full=True)))


# And what is held back.


def _holdable(state: State, violation: Violation) -> Drift | None:
    """What there is to ask about, before it closes; None where it closes at once, or is closed."""
    asks = state.rules.holds and state.rules.mode is Mode.ENFORCE and state.open
    return drift_of(violation) if asks else None


def _drifted(state: State, violation: Violation, drift: Drift, now: Now) -> Step:
    """Another drift is another question, about all there is. Time for an answer counts from the first of them."""
    question = state.question
    known = state.drifts if question is None else question.drifts
    marked = _marked(state, violation)
    if drift in known:
        return Step(marked, (Reattest(full=True),) if question is None else ())
    drifts = frozenset(each for each in known if (each.layer, each.subject) != (drift.layer, drift.subject)) | {drift}
    if len(drifts) > MOST_DRIFTS:
        return _violated(state, violation, now, report=True)
    untold = () if question is None else tuple(each for each in question.untold if drift_of(each.violation) in drifts)
    asked = Question(
        marked.generation,
        now.boot + state.rules.patience if question is None else question.until,
        drifts,
        (*untold, Report(marked.generation, violation)),
    )
    return Step(replace(marked, question=asked), (Ask(asked),))


def _answered(state: State, number: int, now: Now, *, held: bool) -> Step:
    """Only the latest question has an answer: what was said of less is no word about all of it."""
    question = state.question
    if question is None or question.number != number:
        return Step(state, (Drop(f"an answer to question {number}, which nobody asks any more"),))
    if not held or state.lease is None:
        return _given_up(state, now)
    lease = replace(state.lease, affirmed=False, held=True)
    return Step(replace(state, question=None, drifts=question.drifts, lease=lease), (Reattest(full=True),))


def _end_of_question(state: State, now: Now) -> Step:
    if state.question is None or now.boot < state.question.until:
        return Step(state)
    return _given_up(state, now)


def _held(state: State, result: Appraised, now: Now) -> Step:
    """Goes on with what is open. What is marked without reason closes, as what it would be without the mark."""
    if not state.open:
        return Step(state, (Drop("what is held stays open, and opens nothing"),))
    if state.causes and result.measured_from <= state.contradicted_at:
        return Step(state, (Drop("measured before the cause"), Reattest(full=True)))
    if not state.rules.holds or result.tier is not Tier.WARNING or result.lease is None or result.lease.over(now):
        return _given_up(state, now) if state.contested else _contraindicated(state, result.cause, now)
    lease = replace(result.lease, affirmed=False, held=True)
    causes = state.causes or ((result.cause,) if result.cause is not None else ())
    return Step(replace(state, question=None, lease=lease, causes=causes), (Serve(lease),))


def _given_up(state: State, now: Now) -> Step:
    """What was held, or asked about, closes as if it happened now."""
    if not state.causes:
        return _leave(state, Phase.QUARANTINED, "hold-over", Reattest(full=True))
    return _counted(state, state.causes[-1], now, _let_go)


def _let_go(state: State) -> Step:
    marked, latches = _latching(state)
    closing = _leave_for(marked, state.causes[-1])
    again = () if marked.sticky else (Reattest(full=True),)
    return Step(closing.state, (*latches, *closing.commands, *_binding(latches), *again))


def _uncontested(state: State) -> State:
    return replace(state, question=None, drifts=frozenset())


def _told(before: State, decided: Step) -> Step:
    """What was asked about is reported once, whatever came of it; and nothing is held where nothing is enforced."""
    state = decided.state if decided.state.contested else _uncontested(decided.state)
    if before.question is None or state.question is not None:
        return Step(state, decided.commands)
    known = {each.violation for each in decided.commands if isinstance(each, Report)}
    untold = tuple(each for each in before.question.untold if each.violation not in known)
    return Step(state, decided.commands + untold)
