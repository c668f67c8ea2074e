"""A filter that asks us: what of it is a finding, and what the measurer is told of it."""

from __future__ import annotations

import pytest
import yaml
from pydantic import ValidationError

from attestation.calls import CallsMade, Watching
from attestation.coverage import NOTIFIED, CollectorCoverage, Coverage, Mechanism
from attestation.facts import Actor, CallFact, CollectorFact, CollectorState
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from policies.appraise.appraise import appraise
from policies.appraise.reasons import Verdict
from policies.appraise.violation import violates
from policies.model.policy import AttestationPolicy, CallRules, Demand, LayerDemand, Mode
from sidecar.governing import Governed, unmeasurable, watched_calls
from tests.unit.policies.world import POLICY, REFERENCES, REGISTRATION, claimed, coverage, governing
from wire.versions import NOTIFICATIONS, OURS, Version

LEAN = CallsMade(Watching.LEAN, ())


def ruled(
    notified: Demand, *, refuse: bool = False, mode: Mode = Mode.ENFORCE, layer: Demand = Demand.REQUIRED
) -> AttestationPolicy:
    rules = CallRules(watching=Watching.LEAN, notified=notified, refuse_outside=refuse)
    asked = {"layers": {Layer.SYSCALLS: LayerDemand(demand=layer)}, "syscalls": rules, "mode": mode}
    return POLICY.model_copy(update={"spec": POLICY.spec.model_copy(update=asked)})


def watchers(*, runs: bool | None) -> Coverage:
    """runs: None where no listener is spoken of."""
    without = coverage(further=(Layer.SYSCALLS,))
    if runs is None:
        return without
    listening = CollectorCoverage(NOTIFIED, Layer.SYSCALLS, Mechanism.SECCOMP, 10.0, runs)
    return Coverage((*without.collectors, listening), without.absent, without.cutting, without.grade, without.isolation)


def verdict(policy: AttestationPolicy, *, runs: bool | None) -> Verdict:
    claims, bodies = claimed(called=LEAN, watchers=watchers(runs=runs))
    return appraise(claims, bodies, governing(policy, REFERENCES))


def governed(policy: AttestationPolicy) -> Governed:
    return Governed(1, policy, governing(policy, REFERENCES).references, REGISTRATION)


@pytest.mark.parametrize("runs", [None, False])
def test_a_required_filter_that_does_not_ask_affirms_nothing(runs: bool | None) -> None:
    found = verdict(ruled(Demand.REQUIRED), runs=runs)
    assert found.tier is not Tier.AFFIRMING
    assert [(each.kind, each.subject) for each in found.reasons] == [(Signal.COVERAGE_WEAK, "syscalls.notified")]
    assert yaml.safe_load(found.reasons[0].allow)["spec"]["syscalls"] == {"notified": "best-effort"}


@pytest.mark.parametrize(("demand", "runs"), [(Demand.REQUIRED, True), (Demand.BEST_EFFORT, False), (Demand.OFF, None)])
def test_where_it_asks_or_is_not_required_nothing_is_found(demand: Demand, runs: bool | None) -> None:
    assert verdict(ruled(demand), runs=runs).tier is Tier.AFFIRMING


@pytest.mark.parametrize("demand", [Demand.REQUIRED, Demand.BEST_EFFORT])
def test_a_listener_that_is_lost_is_a_violation_where_it_is_required(demand: Demand) -> None:
    lost = CollectorFact(1.0, NOTIFIED, CollectorState.DEAD, "nobody is left under the filter")
    found = violates(lost, ruled(demand), REFERENCES)
    assert (found is not None) == (demand is Demand.REQUIRED)


def test_a_call_that_was_refused_is_told_as_such() -> None:
    told = violates(CallFact(1.0, "chroot", Actor(7, "/bin/app"), refused=True), ruled(Demand.REQUIRED), REFERENCES)
    assert told is not None
    assert ", refused, by /bin/app (7)" in told.text


@pytest.mark.parametrize(
    ("mode", "layer", "notified", "refuses"),
    [
        (Mode.ENFORCE, Demand.REQUIRED, True, True),
        (Mode.OBSERVE, Demand.REQUIRED, True, False),
        (Mode.ENFORCE, Demand.BEST_EFFORT, True, True),
    ],
)
def test_what_is_not_referenced_is_refused_only_where_policy_enforces(
    mode: Mode, layer: Demand, notified: bool, refuses: bool
) -> None:
    told = watched_calls(governed(ruled(Demand.REQUIRED, refuse=True, mode=mode, layer=layer)))
    assert told is not None
    assert (told.notified, told.refuse) == (notified, refuses)


def test_where_the_layer_is_off_nobody_is_asked() -> None:
    policy = ruled(Demand.REQUIRED, layer=Demand.OFF)
    assert policy.spec.notified is Demand.OFF
    assert watched_calls(governed(policy)) is None
    assert verdict(policy, runs=None).tier is Tier.AFFIRMING


def test_coverage_speaks_of_it_only_to_an_authority_that_can_read_it() -> None:
    for minor in (NOTIFICATIONS - 1, NOTIFICATIONS):
        told = watched_calls(governed(ruled(Demand.REQUIRED)), Version(OURS.highest.major, minor))
        assert told is not None
        assert told.notified == (minor == NOTIFICATIONS)


def test_without_a_listener_calls_are_measured_as_they_are_watched() -> None:
    assert unmeasurable(watchers(runs=False)) == frozenset()


def test_refusing_what_nobody_asks_for_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="only a call that waits for us can be refused"):
        CallRules.model_validate({"notified": "off", "refuseOutside": True})
