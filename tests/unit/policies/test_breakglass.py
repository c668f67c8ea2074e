"""Who may break the glass, by the merged policy; and what that opens, and never opens."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from attestation.breakglass import Reach, Scope
from attestation.errors import InvalidConfiguration
from attestation.facts import Actor, CollectorFact, CollectorState, ExecutionFact, Sighting
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.spiffe import SpiffeId
from attestation.trust import TrustVector
from attestation.violation import Violation, ViolationClass
from policies.appraise.appraise import appraise
from policies.appraise.breakglass import Ground, Held, held, waives, waives_violation
from policies.appraise.reasons import Finding, Verdict
from policies.appraise.violation import violates
from policies.model.load import load
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, EffectivePolicy, PolicySpec
from tests.unit.policies.operators import KEYS, STRANGER, SUBJECT, public, rules, signed
from tests.unit.policies.world import BAD, POLICY, REFERENCES, claimed, governing, process

ADA, BOB, CAT = KEYS.values()


def policy(said: Mapping[str, Any], name: str = "hardened", **spec: Any) -> AttestationPolicy:
    written = {"mode": "enforce", "breakGlass": said, **spec}
    return AttestationPolicy(metadata=Metadata(name=name), spec=PolicySpec.model_validate(written))


def ground(said: Mapping[str, Any] | None = None, **changes: Any) -> Ground:
    return replace(Ground("example.org", 3, SUBJECT, policy(rules() if said is None else said)), **changes)


def merged(floor: Mapping[str, Any], below: Mapping[str, Any]) -> EffectivePolicy:
    both = Applying(policy(floor, "floor"), Rank.MESH), Applying(policy(below, "web"), Rank.WORKLOAD)
    return merge(both).policy


# --- who may, and how many it takes ---


def test_two_of_three_operators_are_enough() -> None:
    assert held(signed(), ground()) == Held((), ("ada", "bob"))


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ((ADA,), "did: ada"),
        ((ADA, STRANGER), "did: ada"),
        ((STRANGER,), "did: nobody"),
    ],
)
def test_fewer_or_others_are_not(by: tuple[Any, ...], found: str) -> None:
    assert found in held(signed(*by), ground()).faults[0]


def test_one_person_with_two_keys_is_one_operator() -> None:
    two_keys = [{"name": "ada", "key": public(ADA)}, {"name": "ada", "key": public(CAT)}]
    said = {**rules(), "operators": [*two_keys, {"name": "bob", "key": public(BOB)}]}
    assert not held(signed(ADA, CAT), ground(said))
    assert held(signed(CAT, BOB), ground(said))


def test_an_operator_who_left_the_policy_does_not_count_any_more() -> None:
    assert not held(signed(ADA, BOB), ground(rules("bob", "cat")))


def test_where_nobody_is_named_nobody_can() -> None:
    assert held(signed(), ground({})).faults == ("no policy names an operator who may break the glass",)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"trust_domain": "example.com"}, "for the trust domain example.org"),
        ({"epoch": 2}, "from epoch 3 on"),
        ({"subject": replace(SUBJECT, registration="db")}, "for registrations web"),
        ({"subject": replace(SUBJECT, spiffe_id=SpiffeId.parse("spiffe://example.org/db"))}, "for registrations web"),
        ({"policy": policy(rules(longest="10m"))}, "lasts 30m, where 10m is the longest"),
        ({"policy": policy(rules(quorum=3))}, "3 operators must sign, and did: ada, bob"),
    ],
)
def test_an_order_holds_nowhere_but_where_it_is_for(changes: dict[str, Any], fault: str) -> None:
    found = held(signed(), ground(**changes))
    assert len(found.faults) == 1 and fault in found.faults[0]


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert len(held(signed(ADA), ground(rules(longest="1m"), trust_domain="a", epoch=1)).faults) == 4


def test_the_whole_mesh_is_in_scope_only_of_an_order_that_says_so() -> None:
    elsewhere = replace(SUBJECT, registration="db", spiffe_id=SpiffeId.parse("spiffe://example.org/db"))
    assert held(signed(scope=Scope(Reach.MESH)), ground(subject=elsewhere))
    assert not held(signed(), ground(subject=elsewhere))


# --- what a policy may say of it, and a floor over it ---


def test_only_whom_every_policy_names_by_key_may() -> None:
    replaced = [{"name": "cat", "key": public(STRANGER)}, *rules("ada", "bob")["operators"]]
    ruled = merged(rules(), rules(operators=replaced)).spec.break_glass
    assert {each.key for each in ruled.operators} == {public(ADA), public(BOB)}


def test_nobody_makes_two_operators_of_one_by_giving_a_key_of_theirs_another_name() -> None:
    two_keys = [{"name": "ada", "key": public(ADA)}, {"name": "ada", "key": public(CAT)}]
    floor = rules(operators=[*two_keys, *rules("bob")["operators"]])
    renamed = rules(operators=[{"name": "a.lovelace", "key": public(ADA)}, *floor["operators"][1:]])
    with pytest.raises(
        InvalidConfiguration, match=r"breakGlass.operators differs between .*/floor.* and .*/web.* same key"
    ):
        merged(floor, renamed)


def test_a_floor_forbids_it_with_an_empty_list() -> None:
    assert merged({"operators": []}, rules()).spec.break_glass.operators == ()


def test_the_greater_quorum_and_the_shorter_time_hold() -> None:
    ruled = merged(rules(quorum=3, longest="1h"), rules(quorum=2, longest="10m")).spec.break_glass
    assert (ruled.quorum, ruled.longest) == (3, 600.0)


def test_a_policy_without_a_word_of_it_is_read_by_a_sidecar_that_has_never_heard_of_it() -> None:
    assert "breakGlass" not in POLICY.model_dump_json(by_alias=True)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (rules("ada"), "2 operators must sign and 1 may"),
        (rules(quorum=0), "greater than or equal to 1"),
        (rules(quorum=4), "4 operators must sign and 3 may"),
        (rules(longest="1 hour"), "not a duration"),
        (rules(operators=[*rules("ada")["operators"], *rules("ada", "bob")["operators"]]), "key of ada stands twice"),
        (rules(operators=[{"name": "ada", "key": "AAAA"}]), "no public key"),
        (rules(operators=[{"name": "ada", "key": "a key"}]), "no public key, neither PEM nor base64"),
        (rules(operators=[{"name": "ada", "key": 5}]), "a public key is text"),
        (rules(operators=[{"name": "\x1b", "key": public(ADA)}]), "should match pattern"),
        (rules(quorums=2), "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_read(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        policy(said)


def test_a_key_of_another_kind_is_refused() -> None:
    der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    foreign = rsa.generate_private_key(65537, 2048).public_key().public_bytes(*der)
    with pytest.raises(ValidationError, match="neither on P-256 nor Ed25519"):
        policy(rules(operators=[{"name": "ada", "key": base64.b64encode(foreign).decode()}]))


def test_a_key_may_be_written_as_openssl_prints_it() -> None:
    pem = ADA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    said = rules(operators=[{"name": "ada", "key": pem.decode()}, *rules("bob")["operators"]])
    assert held(signed(), ground(said))


def test_policies_that_leave_too_few_operators_in_common_are_refused_where_they_are_loaded(tmp_path: Path) -> None:
    both = (("floor", "proofbeat-system", ("ada", "bob")), ("web", "default", ("bob", "cat")))
    for name, namespace, names in both:
        (tmp_path / f"{name}.yaml").write_text(_document(name, namespace, names))
    (tmp_path / "registered.yaml").write_text(_REGISTERED)
    with pytest.raises(
        InvalidConfiguration, match=r"2 operators must sign and 1 may: merged from .*/floor.*/web"
    ) as refused:
        load([tmp_path])
    assert refused.value.where.endswith("floor.yaml:6:7")


def _document(name: str, namespace: str, names: tuple[str, ...]) -> str:
    operators = ", ".join(f"{{name: {each}, key: {public(KEYS[each])}}}" for each in names)
    return f"""apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  breakGlass:
      quorum: 2
      operators: [{operators}]
"""


_REGISTERED = """apiVersion: proofbeat.dev/v1alpha1
kind: ReferenceValues
metadata: {name: web}
---
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: "spiffe://example.org/web", references: web}
"""


# --- what it waives ---


def finding(kind: Signal = Signal.FILE_MODIFIED, found_class: ViolationClass = ViolationClass.DRIFT) -> Finding:
    return Finding(kind, found_class, Layer.FILES, "/srv/a", "this", "that", "rule")


def verdict(*reasons: Finding, **claims: int) -> Verdict:
    return Verdict(TrustVector(**{"instance_identity": 2, "executables": 2, "file_system": 96, **claims}), reasons)


@pytest.mark.parametrize("claim", [96, 32])
def test_drift_and_warnings_are_waived(claim: int) -> None:
    assert waives(verdict(finding(), file_system=claim), policy(rules()))


def test_a_tamper_is_never_waived_whatever_else_was_found() -> None:
    assert not waives(verdict(finding(), finding(found_class=ViolationClass.TAMPER)), policy(rules()))


def test_a_foreign_program_that_deletes_itself_is_not_waived_where_policy_calls_the_deleting_drift() -> None:
    ruling = policy(rules(), files={"include": ["/srv/app"]}, onViolation={"execution-deleted": "drift"})
    shown = claimed(kinds=(process(), process("/tmp/payload", BAD, deleted=True)))
    assert not waives(appraise(*shown, governing(ruling)), ruling)
    fact = ExecutionFact(1.0, "/tmp/payload", BAD, Actor(9), Sighting.EVENT, True)
    seen = violates(fact, ruling, REFERENCES)
    assert seen is not None and not waives_violation(seen)


@pytest.mark.parametrize(
    "kind",
    [
        Signal.COLLECTOR_DEAD,
        Signal.LAYER_ABSENT,
        Signal.LAYER_OLD,
        Signal.COVERAGE_WEAK,
        Signal.PROXY_ABSENT,
        Signal.PROXY_UNKNOWN,
        Signal.RULE_ERROR,
    ],
)
def test_what_nobody_can_tell_is_not_waived_for_it_may_hide_a_tamper(kind: Signal) -> None:
    assert not waives(verdict(finding(), finding(kind)), policy(rules()))
    assert not waives(verdict(finding(), executables=1), policy(rules()))


def test_that_nobody_has_looked_for_days_is_not_waived() -> None:
    old = appraise(*claimed(age_ms=10 * 86_400_000), governing())
    assert {each.kind for each in old.reasons} == {Signal.LAYER_OLD}
    assert not waives(old, policy(rules()))


def test_a_verdict_without_a_reason_is_not_waived() -> None:
    assert not waives(verdict(), policy(rules()))


def test_nothing_is_waived_where_nothing_would_close() -> None:
    assert not waives(verdict(finding(), file_system=2), policy(rules()))
    assert not waives(verdict(finding()), policy(rules(), mode="audit"))


def test_of_what_a_sidecar_sees_the_same_is_waived() -> None:
    drift = Violation(Signal.FILE_MODIFIED, ViolationClass.DRIFT, Layer.FILES, "/srv/a", "it changed", 5.0)
    assert waives_violation(drift)
    assert not waives_violation(replace(drift, violation_class=ViolationClass.TAMPER))


@pytest.mark.parametrize("state", [each for each in CollectorState if each is not CollectorState.RUNNING])
def test_a_sidecar_closes_for_what_may_have_gone_unseen(state: CollectorState) -> None:
    violation = violates(CollectorFact(5.0, "files-watch", state), POLICY, REFERENCES)
    assert violation is not None and not waives_violation(violation)
