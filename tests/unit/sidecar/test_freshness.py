"""The invariant of sidecar/freshness.py, case by case and over random histories."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.trust import Tier
from policies.model.policy import Mode, Recovery
from sidecar.freshness import step
from sidecar.states import (
    Appraised,
    Close,
    Closings,
    Command,
    Count,
    Drop,
    Event,
    Flaps,
    Keep,
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
    Waived,
    Waiver,
    WorkloadEnded,
    WouldHave,
)
from tests.unit.sidecar.steps import affirmed, after, at, violation

ENFORCE = State(Rules(Mode.ENFORCE))


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
    assert [type(each) for each in commands] == [Latch, Close, Report], "told once more, now that it binds"


def test_going_over_to_enforce_closes_what_outlived_its_lease_in_audit() -> None:
    ruled, commands = after(
        State(Rules(Mode.AUDIT)), (1.0, affirmed(1, end=50.0)), (60.0, RulesChanged(Rules(Mode.ENFORCE)))
    )
    assert ruled.phase is Phase.STALE
    assert [type(each) for each in commands] == [WouldHave, Reattest, Close, Reattest]


def test_going_over_to_audit_and_back_washes_no_tamper_off() -> None:
    tampered, _ = after(fresh(), (5.0, Violated(violation(5.0, tamper=True))))
    let_pass, _ = after(
        tampered, (6.0, RulesChanged(Rules(Mode.AUDIT))), (7.0, affirmed(2, generation=1, measured=6.5))
    )
    assert let_pass.open
    ruled, _ = after(let_pass, (8.0, RulesChanged(Rules(Mode.ENFORCE))))
    assert not ruled.open
    assert not after(ruled, (9.0, affirmed(3, generation=1, measured=8.5)))[0].open


# Recovery, as policy states it.


def enforcing(**rules: Any) -> State:
    """Open, under these rules."""
    return after(State(Rules(Mode.ENFORCE, **rules)), (1.0, affirmed(1)))[0]


@pytest.mark.parametrize("tamper", [False, True], ids=["drift", "tamper"])
@pytest.mark.parametrize("recovery", [Recovery.REPLACE, Recovery.MANUAL])
def test_what_takes_a_new_instance_or_a_release_is_healed_by_no_measurement(recovery: Recovery, tamper: bool) -> None:
    state = enforcing(**{"tamper" if tamper else "drift": recovery})
    closed, commands = after(state, (5.0, Violated(violation(5.0, tamper=tamper))))
    assert [type(each) for each in commands] == [Latch, Close, Report]
    assert not after(closed, (9.0, affirmed(2, generation=1, measured=8.0)))[0].open
    freed, _ = after(closed, (9.0, Released(frozenset({1}))))
    assert after(freed, (10.0, affirmed(2, generation=2, measured=9.5)))[0].open


def test_what_an_appraisal_found_is_latched_by_the_authoritys_order_and_not_under_a_name_of_our_own() -> None:
    cause = replace(violation(4.0), kind="contraindicated")
    verdict = replace(affirmed(2, tier=Tier.CONTRAINDICATED), lease=None, cause=cause)
    closed, commands = after(enforcing(drift=Recovery.MANUAL), (5.0, verdict))
    assert not closed.open and not closed.sticky
    assert Latch not in [type(each) for each in commands]
    _, commands = after(closed, (5.1, Revoked(violation(5.0, tamper=True))))
    assert [type(each) for each in commands][:2] == [Latch, Close]


def test_a_result_that_comes_too_early_is_kept_and_opens_when_the_time_is_over() -> None:
    closed, _ = after(enforcing(minimum_closed=20.0), (5.0, Violated(violation(5.0))))
    kept, commands = after(closed, (6.0, affirmed(2, generation=1, measured=5.5)))
    assert not kept.open
    assert commands == [Keep(19.0)]
    assert not after(kept, (24.9, Ticked()))[0].open
    opened, commands = after(kept, (25.0, Ticked()))
    assert opened.open
    assert [type(each) for each in commands] == [Serve]


@pytest.mark.parametrize(
    "meanwhile",
    [
        Violated(violation(7.0)),
        Stalled("slept"),
        RulesChanged(Rules(Mode.ENFORCE, minimum_closed=20.0)),
        affirmed(3, generation=1, measured=6.5, tier=Tier.WARNING),
        affirmed(3, generation=0, measured=6.5),
    ],
    ids=["violation", "stall", "policy", "warning", "older"],
)
def test_what_was_kept_is_void_once_anything_speaks_against_it(meanwhile: Event) -> None:
    closed, _ = after(enforcing(minimum_closed=20.0), (5.0, Violated(violation(5.0))))
    kept, _ = after(closed, (6.0, affirmed(2, generation=1, measured=5.5)), (7.0, meanwhile))
    assert not after(kept, (30.0, Ticked()))[0].open


def test_what_was_kept_opens_nothing_once_its_lease_is_over() -> None:
    closed, _ = after(enforcing(minimum_closed=20.0), (5.0, Violated(violation(5.0))))
    kept, _ = after(closed, (6.0, affirmed(2, generation=1, measured=5.5, end=24.0)))
    assert not after(kept, (25.0, Ticked()))[0].open


def test_the_end_of_a_lease_has_no_minimum() -> None:
    stale, _ = after(enforcing(minimum_closed=20.0), (100.0, Ticked()))
    assert after(stale, (101.0, affirmed(2, end=200.0)))[0].open


def test_the_minimum_begins_where_an_earlier_run_of_the_sidecar_closed() -> None:
    restarted = replace(State(Rules(Mode.ENFORCE, minimum_closed=20.0)), closings=Closings(latest=5.0))
    assert not after(restarted, (10.0, affirmed(1)))[0].open
    assert after(restarted, (25.0, affirmed(1)))[0].open


def drifting(state: State, *times: float) -> tuple[State, list[Command]]:
    """Drift closes it at each of these times; a moment later it is repaired, unless that does not do any more."""
    commands: list[Command] = []
    for when in times:
        state, commands = after(state, (when, Violated(violation(when))))
        repaired = affirmed(state.sequence + 1, generation=state.generation, measured=when + 0.1, end=10_000.0)
        state, _ = after(state, (when + 0.2, repaired))
    return state, commands


FLAPS = Flaps(count=2, within=60.0)


def test_drift_that_closes_more_often_than_policy_lets_pass_is_healed_by_no_measurement_any_more() -> None:
    twice, commands = drifting(enforcing(flaps=FLAPS), 5.0, 10.0)
    assert twice.open
    assert Count(Closings(10.0, (5.0, 10.0))) in commands
    thrice, commands = drifting(twice, 15.0)
    assert not thrice.open
    assert [type(each) for each in commands] == [Latch, Close, Report, Close, Report, Count]
    assert [each.violation.kind for each in thrice.sticky] == ["flapping"]
    freed, _ = after(thrice, (20.0, Released(frozenset({thrice.sticky[0].generation}))))
    opened, _ = after(freed, (21.0, affirmed(99, generation=freed.generation, measured=20.5, end=10_000.0)))
    assert opened.open
    assert drifting(opened, 22.0)[0].open, "a release forgives what was counted"


def test_only_closings_within_the_time_count() -> None:
    assert drifting(enforcing(flaps=FLAPS), 5.0, 10.0, 66.0, 127.0, 188.0)[0].open


def test_a_restart_of_the_sidecar_forgets_no_closing() -> None:
    restarted = replace(State(Rules(Mode.ENFORCE, flaps=FLAPS)), closings=Closings(10.0, (5.0, 10.0)))
    opened, _ = after(restarted, (11.0, affirmed(1)))
    assert not drifting(opened, 15.0)[0].open


def test_many_files_that_change_at_once_are_one_closing() -> None:
    state = enforcing(flaps=FLAPS)
    for _ in range(10):
        state, _ = after(state, (5.0, Violated(violation(5.0))))
    assert not state.sticky
    assert state.closings.drift == (5.0,)


# Warnings, where policy serves them.

SERVING = State(Rules(Mode.ENFORCE, serves_warnings=True))


def test_a_warning_opens_where_policy_serves_it_and_is_no_affirmation() -> None:
    state, commands = after(SERVING, (1.0, affirmed(1, tier=Tier.WARNING)))
    assert state.open and state.warned
    assert [type(each) for each in commands] == [Serve]
    earned, _ = after(state, (2.0, affirmed(2)))
    assert earned.open and not earned.warned
    assert not after(state, (100.0, Ticked()))[0].open, "its lease ends like any other"


@pytest.mark.parametrize("tier", [Tier.NONE, Tier.CONTRAINDICATED])
def test_nothing_worse_than_a_warning_opens_where_warnings_are_served(tier: Tier) -> None:
    assert not after(SERVING, (1.0, affirmed(1, tier=tier)))[0].open


def test_a_warning_heals_drift_and_no_tamper_as_an_affirmation_would() -> None:
    for tamper in (False, True):
        closed, _ = after(SERVING, (1.0, affirmed(1)), (5.0, Violated(violation(5.0, tamper=tamper))))
        early, _ = after(closed, (6.0, affirmed(2, generation=1, measured=4.9, tier=Tier.WARNING)))
        assert not early.open
        assert after(early, (7.0, affirmed(3, generation=1, measured=6.5, tier=Tier.WARNING)))[0].open is not tamper


def test_what_a_warning_opened_closes_once_policy_serves_them_no_more() -> None:
    state, _ = after(SERVING, (1.0, affirmed(1, tier=Tier.WARNING)))
    closed, commands = after(state, (2.0, RulesChanged(Rules(Mode.ENFORCE))))
    assert not closed.open
    assert [type(each) for each in commands] == [Close, Reattest]


# Break-glass.


def order(end: float = 50.0, identity: str = "bg-1") -> Waived:
    return Waived(Waiver(identity, end, end + 1e9))


def let_through(sequence: int, *, generation: int = 0, measured: float = 0.0, end: float = 100.0) -> Appraised:
    result = affirmed(sequence, generation=generation, measured=measured, end=end, tier=Tier.CONTRAINDICATED)
    return replace(result, waived=True, cause=violation(measured))


def excepted() -> State:
    """Open by an order alone."""
    return after(ENFORCE, (1.0, order()), (2.0, let_through(1)))[0]


def test_an_order_opens_nothing_by_itself_and_asks_for_a_round() -> None:
    state, commands = after(ENFORCE, (1.0, order()))
    assert not state.open
    assert commands == [Reattest(full=True)]


def test_a_result_that_the_authority_let_through_opens_until_the_orders_end_and_not_beyond() -> None:
    state = excepted()
    assert state.open and state.excepted
    assert state.lease == Lease(1, 50.0, 50.0 + 1e9, affirmed=False, waived="bg-1")
    assert not after(state, (50.0, Ticked()))[0].open


def test_what_the_authority_lets_through_opens_nothing_without_an_order_that_is_known_here() -> None:
    assert not after(ENFORCE, (2.0, let_through(1)))[0].open
    assert not after(ENFORCE, (1.0, order()), (2.0, replace(let_through(1), waived=False)))[0].open
    assert not after(ENFORCE, (1.0, order(end=1.5)), (2.0, let_through(1)))[0].open


def test_what_is_let_through_too_late_or_from_before_a_cause_opens_nothing() -> None:
    assert not after(ENFORCE, (1.0, order()), (12.0, let_through(1, end=10.0)))[0].open
    drifted, _ = after(fresh(), (5.0, Violated(violation(5.0))), (6.0, order()))
    too_early, commands = after(drifted, (7.0, let_through(2, generation=1, measured=4.9)))
    assert not too_early.open
    assert commands == [Drop("measured before the cause"), Reattest(full=True)]
    assert after(too_early, (8.0, let_through(3, generation=1, measured=6.5)))[0].open


def test_an_order_that_is_over_when_it_is_told_is_none() -> None:
    assert after(ENFORCE, (60.0, order()))[0].waiver is None


@pytest.mark.parametrize("tier", [Tier.NONE, Tier.AFFIRMING])
def test_a_mark_on_any_other_tier_makes_no_exception(tier: Tier) -> None:
    state, _ = after(ENFORCE, (1.0, order()), (2.0, replace(let_through(1), tier=tier)))
    assert not state.excepted


def test_drift_closes_nothing_while_an_order_is_in_force_and_is_reported_all_the_same() -> None:
    state, commands = after(fresh(), (2.0, order()), (5.0, Violated(violation())))
    assert state.excepted
    assert state.lease is not None and state.lease.boot_end == 50.0
    assert [type(each) for each in commands] == [Serve, WouldHave, Report, Reattest]


@pytest.mark.parametrize(
    "event",
    [
        Violated(violation(tamper=True)),
        Violated(replace(violation(), kind="collector-overflowed")),
        MeasurerLost(violation()),
        Revoked(violation()),
        Stalled("slept"),
        WorkloadEnded("gone"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_nothing_but_drift_is_waived(event: Event) -> None:
    for state in (excepted(), after(fresh(), (2.0, order()))[0]):
        closed, commands = after(state, (5.0, event))
        assert not closed.open
        assert Close in [type(each) for each in commands]


def test_what_is_latched_stays_closed_whatever_order_comes() -> None:
    tampered, _ = after(fresh(), (5.0, Violated(violation(5.0, tamper=True))))
    state, commands = after(tampered, (6.0, order()), (7.0, let_through(2, generation=1, measured=6.5)))
    assert not state.open
    assert [type(each) for each in commands] == [Drop]


def test_the_end_of_an_order_closes_for_what_was_found_meanwhile() -> None:
    for ends in (Waived(None), Ticked()):
        found, _ = after(fresh(), (2.0, order()), (5.0, Violated(violation())))
        closed, commands = after(found, (50.0, ends))
        assert closed.phase is Phase.QUARANTINED
        assert commands == [Close("file-modified: /srv/app/main.py", violation()), Reattest(full=True)]
        assert not after(closed, (51.0, affirmed(2, generation=1, measured=4.0, end=200.0)))[0].open
        assert after(closed, (52.0, affirmed(3, generation=1, measured=51.0, end=200.0)))[0].open


def test_the_end_of_an_order_closes_what_an_appraisal_found_meanwhile() -> None:
    closed, commands = after(excepted(), (9.0, Waived(None)))
    assert closed.phase is Phase.QUARANTINED
    assert [type(each) for each in commands] == [Close, Reattest]


def test_where_drift_takes_a_new_instance_it_does_so_from_the_orders_end_on() -> None:
    strict = replace(ENFORCE, rules=Rules(Mode.ENFORCE, drift=Recovery.REPLACE))
    found, commands = after(strict, (1.0, affirmed(1)), (2.0, order()), (5.0, Violated(violation())))
    assert found.open and Latch not in [type(each) for each in commands]
    closed, commands = after(found, (50.0, Ticked()))
    assert [type(each) for each in commands] == [Latch, Close, Report, Reattest]
    assert not after(closed, (52.0, affirmed(3, generation=1, measured=51.0, end=200.0)))[0].open


def test_the_end_of_an_order_changes_nothing_for_what_was_earned() -> None:
    state, commands = after(fresh(), (2.0, order()), (9.0, Waived(None)))
    assert state.open and commands == []


def test_repair_earns_again_what_an_order_had_kept_open() -> None:
    found, _ = after(fresh(), (2.0, order()), (5.0, Violated(violation())))
    repaired, _ = after(found, (7.0, affirmed(2, generation=1, measured=6.0)))
    assert repaired.open and not repaired.excepted
    assert after(repaired, (50.0, Ticked()))[0].open


def test_of_two_orders_the_earlier_end_holds_once_the_later_one_is_gone() -> None:
    state, commands = after(excepted(), (9.0, order(end=20.0, identity="bg-2")))
    assert state.lease is not None and (state.lease.boot_end, state.lease.waived) == (20.0, "bg-2")
    assert [type(each) for each in commands] == [Serve]
    assert not after(state, (20.0, Ticked()))[0].open


def test_an_order_does_not_stretch_a_lease() -> None:
    state, _ = after(ENFORCE, (1.0, order(end=500.0)), (2.0, let_through(1, end=10.0)))
    assert state.open
    assert not after(state, (10.0, Ticked()))[0].open


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
@given(HISTORIES, st.booleans())
def test_in_enforce_traffic_is_open_only_while_the_invariant_holds(
    history: list[tuple[float, Event]], serves_warnings: bool
) -> None:
    opening = (Tier.AFFIRMING, Tier.WARNING) if serves_warnings else (Tier.AFFIRMING,)
    state, serving = State(Rules(Mode.ENFORCE, serves_warnings=serves_warnings)), False
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
                assert event.tier in opening, "(a) only what affirms opens, or warns where policy serves that"
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


STATED = st.builds(
    lambda drift, minimum, flaps: Rules(Mode.ENFORCE, drift, minimum_closed=minimum, flaps=flaps),
    st.sampled_from(Recovery),
    st.sampled_from([0.0, 5.0, 50.0]),
    st.sampled_from([None, Flaps(1, 20.0), Flaps(2, 100.0)]),
)
HAPPENING = st.sampled_from(["drift", "affirmed", "drift", "affirmed", "ticked", "tamper", "released", "stalled"])
CLOSELY = st.lists(st.tuples(st.floats(0.1, 20.0), HAPPENING), max_size=40)
"""Each so many seconds after the one before, and as it fits the state of that moment."""


def fitting(what: str, state: State, now: float) -> Event:
    match what:
        case "affirmed":
            return affirmed(state.sequence + 1, generation=state.generation, measured=now, end=10_000.0)
        case "released":
            return Released(frozenset(each.generation for each in state.sticky))
        case "stalled":
            return Stalled("stall")
        case "ticked":
            return Ticked()
        case _:
            return Violated(violation(now - 0.05, tamper=what == "tamper"))


@settings(max_examples=500, deadline=None)
@given(CLOSELY, STATED)
def test_no_history_opens_before_the_minimum_or_after_too_many_closings(
    history: list[tuple[float, str]], rules: Rules
) -> None:
    state, now, closed = State(rules), 0.0, float("-inf")
    drifts: list[float] = []
    for pause, what in history:
        now += pause
        was_open, latched = state.open, bool(state.sticky)
        decided = step(state, fitting(what, state, now), at(now))
        state = decided.state
        if any(isinstance(each, Close) for each in decided.commands) and state.phase is Phase.QUARANTINED:
            closed = now
        if was_open and what == "drift":
            drifts.append(now)
        if latched and not state.sticky:
            drifts.clear()
        assert was_open or not state.open or now >= closed + rules.minimum_closed
        if rules.flaps is not None and state.open:
            assert len([each for each in drifts if each > max(drifts) - rules.flaps.within]) <= rules.flaps.count


WAIVERS = st.one_of(
    st.just(Waived(None)),
    st.builds(lambda end, wall: Waived(Waiver(f"bg-{end}-{wall}", end, wall + 1e9)), TIMES, TIMES),
)
MARKED = st.builds(
    lambda *fields: replace(appraised(*fields), waived=True, cause=violation(1.0)),
    TIERS,
    st.integers(0, 6),
    st.integers(0, 30),
    TIMES,
    TIMES,
    st.booleans(),
)
SHIFTS = st.sampled_from([0.0, 0.0, 0.0, -150.0, -20.0, 20.0, 150.0])
"""Seconds by which somebody has set the wall clock."""
EXCEPTIONS = st.lists(st.tuples(TIMES, st.one_of(EVENTS, WAIVERS, MARKED), SHIFTS), max_size=40).map(
    lambda history: sorted(history, key=lambda e: e[0])
)


@settings(max_examples=1000, deadline=None)
@given(EXCEPTIONS)
def test_nothing_keeps_traffic_open_beyond_an_order_without_an_affirming_result(
    history: list[tuple[float, Event, float]],
) -> None:
    state, serving, waiver = ENFORCE, False, None
    earned, lease = False, None
    for when, event, shift in history:
        now = Now(when, when + 1e9 + shift)
        decided = step(state, event, now)
        if isinstance(event, Waived) and state.phase is not Phase.ENDED:
            waiver = event.waiver
        for command in decided.commands:
            if isinstance(command, Close):
                serving = earned = False
            elif isinstance(command, Serve):
                serving, lease, earned = True, command.lease, not command.lease.waived
                assert not earned or (isinstance(event, Appraised) and event.tier is Tier.AFFIRMING)
        seen = isinstance(event, Violated) and not event.violation.tamper
        if isinstance(event, Violated | Revoked | MeasurerLost | Stalled) and not (seen and serving and not earned):
            assert not serving, "nothing but drift is waived, and drift only by an order"
        state = decided.state
        assert serving == state.open
        if serving:
            assert lease is not None and not lease.over(now)
            assert not state.sticky
            if not earned:
                assert waiver is not None and not waiver.over(now), "an order in force, by both clocks"
                assert lease.waived == waiver.id
                assert lease.boot_end <= waiver.boot_end
                assert lease.wall_end <= waiver.wall_end
    if waiver is not None:
        for end in (Now(waiver.boot_end, 0.0), Now(0.0, waiver.wall_end)):
            assert earned or not step(state, Ticked(), end).state.open


@settings(max_examples=300, deadline=None)
@given(HISTORIES, st.sampled_from([Mode.OBSERVE, Mode.AUDIT]))
def test_in_observe_and_audit_no_history_closes_traffic(history: list[tuple[float, Event]], mode: Mode) -> None:
    state = State(Rules(mode, Recovery.MANUAL, Recovery.MANUAL, minimum_closed=50.0, flaps=Flaps(1, 100.0)))
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
