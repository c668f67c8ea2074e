"""What is done to a workload, over random histories of the machine, and case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.containment import Containment
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import Violation, ViolationClass
from policies.model.policy import ContainmentRules, Mode
from sidecar.containment import class_of, wanted
from sidecar.freshness import step
from sidecar.states import (
    Appraised,
    Event,
    Lease,
    Now,
    Phase,
    Released,
    Revoked,
    Rules,
    RulesChanged,
    Stalled,
    State,
    Ticked,
    Violated,
    WorkloadEnded,
)

DRIFT, TAMPER = ViolationClass.DRIFT, ViolationClass.TAMPER
NONE, FREEZE, KILL = Containment.NONE, Containment.FREEZE, Containment.KILL


def found(
    kind: Signal = Signal.FILE_MODIFIED, of: ViolationClass = DRIFT, layer: Layer = Layer.FILES, subject: str = "/srv"
) -> Violation:
    return Violation(kind, of, layer, subject, "it differs", 5.0)


def closed(*causes: Violation, mode: Mode = Mode.ENFORCE) -> State:
    return State(Rules(mode), Phase.QUARANTINED, causes=causes)


@pytest.mark.parametrize("drift", list(Containment))
@pytest.mark.parametrize("tamper", list(Containment))
def test_each_class_has_its_own_measure_and_of_two_the_graver_holds(drift: Containment, tamper: Containment) -> None:
    rules = ContainmentRules(drift=drift, tamper=tamper)
    assert wanted(NONE, closed(found()), rules) is drift
    assert wanted(NONE, closed(found(of=TAMPER)), rules) is tamper
    both = wanted(NONE, closed(found(), found(of=TAMPER)), rules)
    assert both.severity == max(drift.severity, tamper.severity)


@pytest.mark.parametrize(
    "kind", [Signal.PROXY_FOREIGN, Signal.COLLECTOR_DEAD, Signal.MEASURER_LOST, Signal.KEY_SOCKET_SECOND_CLIENT]
)
def test_what_is_found_of_envoy_or_of_a_watcher_is_not_made_up_for_by_the_workload(kind: Signal) -> None:
    rules = ContainmentRules(drift=KILL, tamper=KILL)
    assert wanted(NONE, closed(found(kind, TAMPER)), rules) is NONE
    assert wanted(NONE, closed(found(Signal.CONTRAINDICATED, subject=kind)), rules) is NONE


def test_what_an_appraisal_or_the_authority_found_of_it_counts_by_its_class() -> None:
    assert class_of(found(Signal.CONTRAINDICATED, subject=Signal.FILE_MISSING)) is DRIFT
    assert class_of(found(Signal.QUARANTINED_DRIFT, TAMPER, Layer.ATTESTER)) is DRIFT
    assert class_of(found(Signal.QUARANTINED_ORDER, TAMPER, Layer.ATTESTER)) is TAMPER


def test_a_run_that_knows_of_no_cause_keeps_frozen_what_an_earlier_one_froze() -> None:
    rules = ContainmentRules(drift=FREEZE)
    assert wanted(FREEZE, State(Rules(Mode.ENFORCE)), rules) is FREEZE
    assert wanted(FREEZE, State(Rules(Mode.ENFORCE), Phase.FRESH), rules) is NONE
    assert wanted(FREEZE, State(Rules(Mode.ENFORCE)), ContainmentRules()) is NONE, "nobody asks for it any more"


events = st.one_of(
    st.builds(
        lambda of, kind: Violated(found(kind, of)),
        st.sampled_from([DRIFT, TAMPER]),
        st.sampled_from([Signal.FILE_MODIFIED, Signal.EXECUTION_FOREIGN, Signal.PROXY_FOREIGN, Signal.COLLECTOR_DEAD]),
    ),
    st.builds(lambda: Revoked(found(Signal.QUARANTINED_ORDER, TAMPER, Layer.ATTESTER))),
    st.builds(lambda generations: Released(frozenset(generations)), st.sets(st.integers(0, 12))),
    st.builds(lambda mode: RulesChanged(Rules(mode)), st.sampled_from(Mode)),
    st.just(Stalled("slept")),
    st.just(Ticked()),
    st.just("affirmed"),
)
rules = st.builds(ContainmentRules, drift=st.sampled_from(Containment), tamper=st.sampled_from(Containment))


@settings(max_examples=300)
@given(rules, st.lists(events, max_size=25))
def test_no_history_contains_what_is_open_or_not_enforced_or_more_than_policy_asks_or_lets_go_what_is_closed(
    ruled: ContainmentRules, story: list[Event | str]
) -> None:
    state, how, most = State(Rules(Mode.ENFORCE)), NONE, max(ruled.drift.severity, ruled.tamper.severity)
    for number, event in enumerate(story):
        now = Now(10.0 + number, 1e9 + number)
        if isinstance(event, str):
            lease = Lease(number, 1e6, 1e10)
            event = Appraised(Tier.AFFIRMING, state.generation, number, now.boot, lease)
        state = step(state, event, now).state
        before, how = how, wanted(how, state, ruled)
        enforced = state.rules.mode is Mode.ENFORCE
        assert how is NONE or (enforced and not state.open)
        assert how.severity <= most
        assert how.severity >= before.severity or state.open or not enforced
        assert wanted(how, state, ruled) is how, "thought of twice, it is the same"


def test_the_end_of_the_workload_orders_nothing_more() -> None:
    ended = step(replace(closed(found(of=TAMPER))), WorkloadEnded("gone"), Now(9.0, 1e9)).state
    assert wanted(NONE, ended, ContainmentRules(tamper=KILL)) is NONE
