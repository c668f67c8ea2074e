"""The judge of `bench faults`, judged: it must not call a leak a closing, nor a closing a leak."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proofbeat.bench.faults import oracle, plan
from proofbeat.bench.faults.oracle import Expectation, Lease, SideStory, Story
from proofbeat.bench.faults.plan import Fault, Kind, Moment, Target
from proofbeat.bench.faults.run import report
from proofbeat.demo.layout import Terms
from proofbeat.demo.load import Record

TERMS = Terms(interval=1.0, freshness=6.0, deadman=1.0)
WELL = SideStory()


def fault(kind: Kind, target: Target, *, seconds: float = 0.0, side: str = "web", drift: bool = False) -> Fault:
    return Fault(1, kind, target, side, Moment.IDLE, seconds, drift)


def story(*records: Record, web: SideStory = WELL, db: SideStory = WELL, recovered: bool = True) -> Story:
    """From 100 s, restored at 102, over at 110."""
    return Story(100.0, 102.0, recovered, 110.0, {"web": web, "db": db}, records)


def served(began: float, flow: int = 0) -> Record:
    return Record(flow, True, began, began + 0.01)


def refused(began: float, flow: int = 0) -> Record:
    return Record(flow, False, began, began + 0.01)


def test_the_same_seed_gives_the_same_faults_each_on_its_own_as_in_the_list() -> None:
    listed = plan.faults(7, 50, TERMS, root=True)
    assert listed == plan.faults(7, 50, TERMS, root=True)
    assert listed[:20] == plan.faults(7, 20, TERMS, root=True)
    assert listed != plan.faults(8, 50, TERMS, root=True)


def test_a_thousand_faults_hold_every_case_there_is() -> None:
    drawn = {(each.kind, each.target, each.drift) for each in plan.faults(1, 1000, TERMS, root=True)}
    assert drawn == {(case.kind, case.target, case.drift) for case in plan.catalogue(TERMS)}


def test_an_ordinary_user_is_given_only_faults_that_he_can_bring_about() -> None:
    roots = {(case.kind, case.target, case.drift) for case in plan.catalogue(TERMS) if case.root}
    assert all((each.kind, each.target, each.drift) not in roots for each in plan.faults(1, 500, TERMS, root=False))


def test_what_is_answered_after_the_dead_mans_time_is_a_leak_and_before_it_none() -> None:
    dead = SideStory(died=(100.0,), fresh=(103.0,))
    killed = fault(Kind.KILL, Target.SIDECAR)
    assert not oracle.judge(killed, story(served(101.0), refused(101.2), served(103.1), web=dead), TERMS).leaked
    late = served(101.2)
    assert [leak for leak, _ in oracle.judge(killed, story(late, web=dead), TERMS).leaked] == [late]


def test_what_is_answered_after_a_reported_closing_is_a_leak_whatever_the_fault() -> None:
    closed = SideStory(closed=(101.0,), left=(100.9,), fresh=(104.0,))
    found = oracle.judge(fault(Kind.THROTTLE, Target.ENVOY), story(served(101.5), web=closed), TERMS)
    assert len(found.leaked) == 1
    assert not found.holds


def test_what_is_answered_after_the_last_possible_lease_is_a_leak_on_either_side() -> None:
    gone = fault(Kind.OUTLIVE, Target.AUTHORITY, seconds=7.0, side="")
    over = SideStory(closed=(105.5,), left=(105.4,), fresh=())
    found = oracle.judge(gone, story(served(107.2), web=over, db=WELL), TERMS)
    assert found.leaked


def test_a_lease_that_had_to_hold_and_did_not_is_lost_although_nothing_leaked() -> None:
    left = SideStory(left=(100.5,), fresh=(101.0,))
    found = oracle.judge(fault(Kind.KILL, Target.AUTHORITY, side=""), story(served(100.1), db=left), TERMS)
    assert found.lost
    assert not found.holds


def test_an_authority_whose_restart_took_longer_than_a_lease_costs_leases_and_that_is_right() -> None:
    killed, left = fault(Kind.KILL, Target.AUTHORITY, side=""), SideStory(left=(106.0,), fresh=(108.0,))
    assert oracle.judge(killed, replace(story(served(100.1), db=left), away=1.9), TERMS).lost
    assert not oracle.judge(killed, replace(story(served(100.1), db=left), away=2.1), TERMS).lost


def test_a_refusal_counts_only_where_traffic_had_to_hold() -> None:
    records = (refused(100.5), served(100.6))
    assert oracle.judge(fault(Kind.STOP_BRIEFLY, Target.SIDECAR), story(*records), TERMS).refused == 1
    assert oracle.judge(fault(Kind.KILL, Target.ENVOY), story(*records), TERMS).refused == 0


def test_a_fault_that_demands_a_closing_is_not_met_by_none() -> None:
    found = oracle.judge(fault(Kind.EVENTS_OVERRUN, Target.MEASURER), story(served(100.5)), TERMS)
    assert found.kept
    assert not found.holds


def test_drift_is_closed_for_whatever_else_goes_on() -> None:
    drift = fault(Kind.STOP, Target.ENVOY, seconds=1.2, drift=True)
    closed = SideStory(left=(100.1,), fresh=(105.0,))
    assert oracle.judge(drift, story(served(102.0), web=closed), TERMS).leaked


def test_an_outage_lasts_until_the_last_flow_is_back() -> None:
    records = (refused(100.5, 0), refused(100.6, 1), served(101.0, 0), served(103.0, 1), served(104.0, 0))
    found = oracle.judge(fault(Kind.KILL, Target.ENVOY), story(*records), TERMS)
    assert found.outage == pytest.approx(103.01 - 100.5)
    assert found.recovery == pytest.approx(103.01 - 102.0)


def test_what_never_flows_again_is_not_recovered_from() -> None:
    found = oracle.judge(fault(Kind.KILL, Target.ENVOY), story(refused(100.5), recovered=False), TERMS)
    assert found.recovery is None
    assert not found.holds


def test_the_table_asks_for_something_wherever_the_outcome_is_not_open() -> None:
    asked = {
        (case.kind, case.target): oracle.expected(fault(case.kind, case.target, drift=case.drift), TERMS)
        for case in plan.catalogue(TERMS)
    }
    assert asked[Kind.STOP, Target.AUTHORITY].lease is not Lease.EITHER
    assert asked[Kind.KILL, Target.WORKLOAD] == Expectation(Lease.ENDS, TERMS.deadman + oracle.GRACE)
    assert {kind for (kind, _), each in asked.items() if each.lease is Lease.EITHER} == {
        Kind.OUT_OF_MEMORY,
        Kind.MEMORY_REFUSED,
        Kind.THROTTLE,
        Kind.DESCRIPTORS,
        Kind.DISK_FULL,
        Kind.DISK_READ_ONLY,
        Kind.CORRUPT,
        Kind.CLOCK,
    }


def test_the_budgets_count_leaks_and_losses() -> None:
    lost = oracle.judge(
        fault(Kind.KILL, Target.AUTHORITY, side=""), story(served(100.1), db=SideStory(left=(100.5,))), TERMS
    )
    closed = SideStory(closed=(101.0,), left=(100.9,), fresh=(104.0,))
    leaked = oracle.judge(fault(Kind.THROTTLE, Target.ENVOY), story(served(101.5), served(101.6), web=closed), TERMS)
    budgets = {each.what: each for each in report([lost, leaked], requests=10, tokens=0).budgets}
    assert budgets["requests leaked"].measured == 2
    assert budgets["leases lost that should have held"].measured == 1
    assert not budgets["requests leaked"].holds
