"""System calls: what of them is a finding, of a fact as of evidence."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attestation import calls
from attestation.calls import COMPAT, NAMES, RING, CallsMade, Watching
from attestation.capabilities import CAPABILITIES
from attestation.errors import MalformedEvidence
from attestation.facts import Actor, CallFact, CapabilityFact
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from policies.appraise.appraise import appraise
from policies.appraise.reasons import Verdict
from policies.appraise.violation import violates
from policies.model.policy import AttestationPolicy, CallRules, Demand, LayerDemand
from policies.model.references import ReferenceSpec
from sidecar.governing import Governed, watched_calls
from tests.unit.policies.world import POLICY, REFERENCES, REGISTRATION, claimed, coverage, governing
from wire.versions import CAPABILITY_USES, OURS, Version

SETS = {"learned": ("openat", "read", "write"), "by-hand": ("close", "io_uring:read")}
LISTED = REFERENCES.model_copy(update={"spec": REFERENCES.spec.model_copy(update={"syscalls": SETS})})
ALLOWED = sorted(LISTED.spec.calls)
ANY = st.sampled_from([*sorted(NAMES)[::7], COMPAT, f"{RING}openat", *ALLOWED])


def ruled(demand: Demand = Demand.REQUIRED, watching: Watching = Watching.STRICT) -> AttestationPolicy:
    layers = {Layer.SYSCALLS: LayerDemand(demand=demand)}
    return POLICY.model_copy(
        update={"spec": POLICY.spec.model_copy(update={"layers": layers, "syscalls": CallRules(watching=watching)})}
    )


def verdict(policy: AttestationPolicy, made: CallsMade | None) -> Verdict:
    further = () if made is None else (Layer.SYSCALLS,)
    claims, bodies = claimed(called=made, watchers=coverage(further=further))
    return appraise(claims, bodies, governing(policy, LISTED))


def fact(name: str) -> CallFact:
    return CallFact(1.0, name, Actor(7, "/usr/bin/redis-server"))


@given(st.sets(ANY, max_size=8))
def test_facts_and_evidence_are_judged_alike(made: set[str]) -> None:
    policy = ruled()
    told = {violation.subject for name in made if (violation := violates(fact(name), policy, LISTED)) is not None}
    found = verdict(policy, CallsMade(Watching.STRICT, tuple(sorted(made))))
    assert {each.subject for each in found.reasons} == told == made - LISTED.spec.calls
    assert found.tier is (Tier.CONTRAINDICATED if told else Tier.AFFIRMING)


def test_what_is_referenced_in_any_set_may_be_called() -> None:
    assert verdict(ruled(), CallsMade(Watching.STRICT, tuple(ALLOWED))).tier is Tier.AFFIRMING


def test_the_mend_of_a_call_is_the_set_of_what_is_allowed_by_hand() -> None:
    found = violates(fact("chroot"), ruled(), LISTED)
    assert found is not None
    assert (found.kind, found.subject) == (Signal.CALL_FOREIGN, "chroot")
    assert yaml.safe_load(found.allow)["spec"] == {"syscalls": {"allowed": ["chroot"]}}
    assert "redis-server (7)" in found.text


def test_where_the_layer_is_off_no_call_is_a_finding() -> None:
    policy = ruled(Demand.OFF)
    assert violates(fact("chroot"), policy, LISTED) is None
    assert verdict(policy, CallsMade(Watching.STRICT, ("chroot",))).tier is Tier.AFFIRMING


def test_a_required_layer_that_nobody_measures_affirms_nothing() -> None:
    found = verdict(ruled(), None)
    assert [each.kind for each in found.reasons] == [Signal.LAYER_ABSENT]
    assert found.tier is not Tier.AFFIRMING


@pytest.mark.parametrize("asked", Watching)
@pytest.mark.parametrize("done", Watching)
def test_whoever_watches_less_than_is_asked_for_is_found_out(asked: Watching, done: Watching) -> None:
    order = list(Watching)
    found = verdict(ruled(watching=asked), CallsMade(done, ("read",)))
    weaker = order.index(done) < order.index(asked)
    assert [each.kind for each in found.reasons] == ([Signal.COVERAGE_WEAK] if weaker else [])


def test_a_name_that_is_no_call_is_refused() -> None:
    with pytest.raises(ValueError, match="goes by its name"):
        ReferenceSpec.model_validate({"syscalls": {"learned": ["opennat"]}})


def test_the_measurer_is_told_what_policy_and_references_say() -> None:
    governed = Governed(1, ruled(watching=Watching.SAMPLED), governing(ruled(), LISTED).references, REGISTRATION)
    told = watched_calls(governed)
    assert told is not None
    assert (told.watching, told.allowed, told.window, told.period) == (Watching.SAMPLED, tuple(ALLOWED), 5.0, 60.0)
    off = Governed(1, ruled(Demand.OFF), governing(ruled(), LISTED).references, REGISTRATION)
    assert watched_calls(off) is None


# Uses of capabilities.

MAY = ("CAP_NET_BIND_SERVICE", "CAP_SETUID")


def asking(demand: Demand = Demand.REQUIRED) -> AttestationPolicy:
    policy = ruled(demand)
    rules = policy.spec.syscalls.model_copy(update={"capabilities": MAY})
    return policy.model_copy(update={"spec": policy.spec.model_copy(update={"syscalls": rules})})


@given(st.sets(st.sampled_from(CAPABILITIES), max_size=4))
def test_uses_are_judged_alike_as_facts_and_in_evidence(used: set[str]) -> None:
    facts = (CapabilityFact(1.0, name, "chroot", Actor(7, "/usr/sbin/nginx")) for name in used)
    told = {violation.subject for each in facts if (violation := violates(each, asking(), LISTED)) is not None}
    found = verdict(asking(), CallsMade(Watching.STRICT, ("read",), tuple(sorted(used))))
    assert {each.subject for each in found.reasons} == told == used - set(MAY)
    assert found.tier is (Tier.CONTRAINDICATED if told else Tier.AFFIRMING)


def test_the_mend_of_a_use_is_the_list_with_it() -> None:
    found = violates(CapabilityFact(1.0, "CAP_SYS_CHROOT", "chroot", Actor(7, "/x")), asking(), LISTED)
    assert found is not None
    assert (found.kind, found.subject) == (Signal.CAPABILITY_USED, "CAP_SYS_CHROOT")
    assert yaml.safe_load(found.allow)["spec"] == {"syscalls": {"capabilities": [*MAY, "CAP_SYS_CHROOT"]}}
    assert "in chroot, by /x (7)" in found.text


def test_whoever_does_not_look_at_uses_where_policy_asks_for_it_is_found_out() -> None:
    found = verdict(asking(), CallsMade(Watching.STRICT, ("read",)))
    assert [(each.kind, each.subject) for each in found.reasons] == [(Signal.COVERAGE_WEAK, "syscalls.capabilities")]


def test_where_nobody_asks_no_use_is_a_finding() -> None:
    used = CallsMade(Watching.STRICT, ("read",), ("CAP_SYS_ADMIN",))
    assert verdict(ruled(), used).tier is Tier.AFFIRMING
    fact = CapabilityFact(1.0, "CAP_SYS_ADMIN", "mount", Actor(7))
    assert violates(fact, ruled(), LISTED) is None
    assert violates(fact, asking(Demand.OFF), LISTED) is None


def test_uses_are_looked_at_only_for_an_authority_that_can_read_of_them() -> None:
    governed = Governed(1, asking(), governing(asking(), LISTED).references, REGISTRATION)
    for minor in (CAPABILITY_USES - 1, CAPABILITY_USES):
        told = watched_calls(governed, Version(OURS.highest.major, minor))
        assert told is not None
        assert told.capabilities == (MAY if minor == CAPABILITY_USES else None)


def test_a_capability_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="goes by its name"):
        CallRules.model_validate({"capabilities": ["CAP_EVERYTHING"]})


def test_a_layer_that_nobody_looked_for_uses_in_is_packed_as_it_was_before_there_were_any() -> None:
    assert calls.pack(CallsMade(Watching.LEAN, ("read",))) == b'{"calls":["read"],"watching":"lean"}'


@pytest.mark.parametrize(
    "text",
    [
        b'{"calls":[],"capabilities":["CAP_X"],"watching":"lean"}',
        b'{"calls":[],"capabilities":["CAP_SETUID","CAP_CHOWN"],"watching":"lean"}',
        b'{"calls":[],"capabilities":null,"watching":"lean"}',
    ],
)
def test_a_layer_of_uses_that_cannot_be_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        calls.unpack(text)
