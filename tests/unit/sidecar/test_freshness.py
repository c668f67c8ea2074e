"""The invariant of sidecar/freshness.py, case by case and over random histories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.layers import Layer
from attestation.trust import Tier
from attestation.violation import Violation, ViolationClass
from policies.model.policy import Mode
from sidecar.freshness import (
    Appraised,
    Close,
    Command,
    Drop,
    Event,
    Latch,
    Lease,
    MeasurerLost,
    Now,
    Phase,
    Reattest,
    Released,
    Report,
    Revoked,
    Rules,
    RulesChanged,
    Serve,
    Stalled,
    State,
    Ticked,
    Violated,
    WorkloadEnded,
    WouldHave,
    step,
)

ENFORCE = State(Rules(Mode.ENFORCE))


def at(boot: float, wall: float | None = None) -> Now:
    return Now(boot, boot + 1e9 if wall is None else wall)


def violation(when: float = 5.0, *, tamper: bool = False, subject: str = "/srv/app/main.py") -> Violation:
    kind = ViolationClass.TAMPER if tamper else ViolationClass.DRIFT
    return Violation("file-modified", kind, Layer.FILES, subject, "modified", when)


def affirmed(
    sequence: int, *, generation: int = 0, measured: float = 0.0, end: float = 100.0, tier: Tier = Tier.AFFIRMING
) -> Appraised:
    lease = Lease(sequence, end, end + 1e9, affirmed=tier is Tier.AFFIRMING)
    return Appraised(tier, generation, sequence, measured, lease)


def after(state: State, *events: tuple[float, Event]) -> tuple[State, list[Command]]:
    commands: list[Command] = []
    for when, event in events:
        decided = step(state, event, at(when))
        state, commands = decided.state, list(decided.commands)
    return state, commands


def fresh() -> State:
    return after(ENFORCE, (1.0, affirmed(1)))[0]


def test_it_starts_closed_and_an_affirming_result_opens_it() -> None:
    state, commands = after(ENFORCE, (1.0, affirmed(1)))
    assert not ENFORCE.open
    assert state.open
    assert [type(each) for each in commands] == [Serve]


@pytest.mark.parametrize("tier", [Tier.NONE, Tier.WARNING, Tier.CONTRAINDICATED])
def test_no_other_tier_opens_it(tier: Tier) -> None:
    assert not after(ENFORCE, (1.0, affirmed(1, tier=tier)))[0].open


def test_a_violation_closes_before_it_reports_and_reports_before_it_attests_again() -> None:
    state, commands = after(fresh(), (5.0, Violated(violation())))
    assert state.phase is Phase.QUARANTINED
    assert [type(each) for each in commands] == [Close, Report, Reattest]


def test_a_tamper_is_latched_before_it_closes() -> None:
    _, commands = after(fresh(), (5.0, Violated(violation(tamper=True))))
    assert [type(each) for each in commands] == [Latch, Close, Report]


def test_a_result_for_an_earlier_generation_is_dropped_however_late_it_comes() -> None:
    state, commands = after(fresh(), (5.0, Violated(violation())), (6.0, affirmed(2, generation=0, measured=5.5)))
    assert not state.open
    assert isinstance(commands[-1], Drop)


def test_drift_is_healed_only_by_a_full_measurement_that_began_after_it() -> None:
    closed, _ = after(fresh(), (5.0, Violated(violation(5.0))))
    too_early, commands = after(closed, (6.0, affirmed(2, generation=1, measured=4.9)))
    assert not too_early.open
    assert Reattest(full=True) in commands
    assert after(too_early, (7.0, affirmed(3, generation=1, measured=6.5)))[0].open


def test_no_measurement_heals_a_tamper() -> None:
    tampered, _ = after(fresh(), (5.0, Violated(violation(5.0, tamper=True))))
    assert not after(tampered, (9.0, affirmed(2, generation=1, measured=8.0)))[0].open


def test_a_release_heals_the_tampers_it_names_and_then_a_full_measurement_opens() -> None:
    tampered, _ = after(fresh(), (5.0, Violated(violation(5.0, tamper=True))))
    freed, commands = after(tampered, (6.0, Released(frozenset({1}))))
    assert not freed.open
    assert commands == [Reattest(full=True)]
    assert after(freed, (7.0, affirmed(2, generation=2, measured=6.5)))[0].open


def test_a_release_is_void_for_what_came_after_it() -> None:
    twice, _ = after(
        fresh(), (5.0, Violated(violation(5.0, tamper=True))), (6.0, Violated(violation(6.0, tamper=True)))
    )
    partly, _ = after(twice, (7.0, Released(frozenset({1}))))
    assert not after(partly, (9.0, affirmed(2, generation=3, measured=8.0)))[0].open


def test_the_end_of_the_lease_closes_on_either_clock() -> None:
    for now in (at(100.0), Now(50.0, 100.0 + 1e9)):
        decided = step(fresh(), Ticked(), now)
        assert decided.state.phase is Phase.STALE
        assert [type(each) for each in decided.commands] == [Close, Reattest]


def test_a_result_whose_lease_is_over_opens_nothing() -> None:
    assert not after(ENFORCE, (200.0, affirmed(1, end=100.0)))[0].open


def test_an_older_result_never_replaces_a_newer_one() -> None:
    newer, _ = after(ENFORCE, (1.0, affirmed(5, end=100.0)))
    state, commands = after(newer, (2.0, affirmed(4, end=500.0)))
    assert state.lease == newer.lease
    assert [type(each) for each in commands] == [Drop]


def test_a_stall_closes_until_something_measured_after_it_is_affirmed() -> None:
    stalled, commands = after(fresh(), (5.0, Stalled("slept")))
    assert stalled.phase is Phase.STALE
    assert [type(each) for each in commands] == [Close, Reattest]
    assert not after(stalled, (6.0, affirmed(2, generation=0)))[0].open
    assert after(stalled, (6.0, affirmed(2, generation=1)))[0].open


def test_a_lease_that_ends_during_a_quarantine_does_not_soften_it() -> None:
    closed, _ = after(fresh(), (5.0, Violated(violation())), (500.0, Ticked()))
    assert closed.phase is Phase.QUARANTINED


def test_ten_thousand_files_removed_at_once_are_one_closing_and_a_bounded_number_of_reports() -> None:
    state, closings, reports = fresh(), 0, 0
    for number in range(10_000):
        decided = step(state, Violated(violation(5.0, subject=f"/srv/app/{number}")), at(5.0))
        state = decided.state
        closings += sum(isinstance(each, Close) for each in decided.commands)
        reports += sum(isinstance(each, Report) for each in decided.commands)
    assert closings == 1
    assert reports <= 32


def test_a_tamper_during_a_drift_closes_again_under_its_own_name() -> None:
    drifted, _ = after(fresh(), (5.0, Violated(violation())))
    _, commands = after(drifted, (6.0, Violated(violation(6.0, tamper=True))))
    assert [type(each) for each in commands][:2] == [Latch, Close]


def test_the_end_of_the_workload_is_final() -> None:
    over, commands = after(fresh(), (5.0, WorkloadEnded("gone")))
    assert [type(each) for each in commands] == [Close]
    assert not after(over, (6.0, affirmed(9, measured=5.5)))[0].open


def test_a_contraindicated_result_closes_once_for_the_same_cause() -> None:
    verdict = replace(affirmed(2, tier=Tier.CONTRAINDICATED), lease=None, cause=violation(4.0))
    closed, commands = after(fresh(), (5.0, verdict))
    assert closed.phase is Phase.QUARANTINED
    assert Close in [type(each) for each in commands]
    _, again = after(closed, (6.0, replace(verdict, sequence=3, generation=closed.generation)))
    assert Close not in [type(each) for each in again]


def test_going_over_to_enforce_closes_what_audit_had_let_pass() -> None:
    audit = State(Rules(Mode.AUDIT))
    let_pass, _ = after(audit, (1.0, affirmed(1)), (5.0, Violated(violation(5.0, tamper=True))))
    assert let_pass.open
    ruled, commands = after(let_pass, (6.0, RulesChanged(Rules(Mode.ENFORCE))))
    assert not ruled.open
    assert [type(each) for each in commands] == [Latch, Close]


# Random histories.

TIMES = st.floats(0.0, 200.0, allow_nan=False)
CLASSES = st.booleans()
TIERS = st.sampled_from(list(Tier))


def appraised(tier: Tier, generation: int, sequence: int, measured: float, end: float, given: bool) -> Appraised:
    """given: a lease came with it."""
    with_lease = affirmed(sequence, generation=generation, measured=measured, end=end, tier=tier)
    return with_lease if given else replace(with_lease, lease=None)


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(lambda when, tamper: Violated(violation(when, tamper=tamper)), TIMES, CLASSES),
    st.builds(lambda when: Revoked(violation(when, tamper=True)), TIMES),
    st.builds(lambda when: MeasurerLost(violation(when)), TIMES),
    st.builds(
        appraised,
        TIERS,
        st.integers(0, 6),
        st.integers(0, 30),
        TIMES,
        TIMES,
        st.booleans(),
    ),
    st.builds(Released, st.frozensets(st.integers(1, 6))),
    st.builds(Stalled, st.just("stall")),
    st.just(Ticked()),
    st.builds(WorkloadEnded, st.just("gone")),
)
HISTORIES = st.lists(st.tuples(TIMES, EVENTS), max_size=40).map(lambda history: sorted(history, key=lambda e: e[0]))


@settings(max_examples=500, deadline=None)
@given(HISTORIES)
def test_in_enforce_traffic_is_open_only_while_the_invariant_holds(history: list[tuple[float, Event]]) -> None:
    state, serving = ENFORCE, False
    lease: Lease | None = None
    contradicted = opened_from = float("-inf")
    for when, event in history:
        decided = step(state, event, at(when))
        if isinstance(event, Violated | Revoked | MeasurerLost) and state.phase is not Phase.ENDED:
            cause = event.violation if isinstance(event, Violated) else event.cause
            contradicted = max(contradicted, cause.at)
        for command in decided.commands:
            if isinstance(command, Close):
                serving, lease = False, None
            elif isinstance(command, Serve):
                assert isinstance(event, Appraised)
                assert event.tier is Tier.AFFIRMING, "(a) only an affirming appraisal opens"
                assert event.generation == state.generation, "(c) and only one of the current generation"
                serving, lease, opened_from = True, command.lease, event.measured_from
                if state.causes:
                    assert opened_from > contradicted, "(c) and only measured after every cause"
                contradicted = float("-inf")
        state = decided.state
        assert serving == state.open, "what was commanded is what the machine believes"
        if serving:
            assert lease is not None
            assert not lease.over(at(when)), "(b) never beyond the lease"
            assert not state.sticky, "never while a tamper stands"
            assert contradicted == float("-inf"), "(c) never after a contradiction"


@settings(max_examples=300, deadline=None)
@given(HISTORIES, st.sampled_from([Mode.OBSERVE, Mode.AUDIT]))
def test_in_observe_and_audit_no_history_closes_traffic(history: list[tuple[float, Event]], mode: Mode) -> None:
    state = State(Rules(mode))
    for when, event in history:
        decided = step(state, event, at(when))
        state = decided.state
        assert not any(isinstance(each, Close | Latch) for each in decided.commands)
        if isinstance(event, Violated) and state.phase is not Phase.ENDED:
            assert any(isinstance(each, WouldHave) for each in decided.commands)


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
def test_the_generation_never_falls_and_every_violation_raises_it(history: list[tuple[float, Event]]) -> None:
    state = ENFORCE
    for when, event in history:
        decided = step(state, event, at(when))
        assert decided.state.generation >= state.generation
        if isinstance(event, Violated) and state.phase is not Phase.ENDED:
            assert decided.state.generation > state.generation
        state = decided.state
