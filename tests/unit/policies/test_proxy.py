"""What verifier and sidecar make of the Envoy that holds the key, and that they make the same of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import proxy as body
from attestation.claims import LayerClaim
from attestation.coverage import CollectorCoverage, Mechanism
from attestation.errors import MalformedEvidence
from attestation.facts import Actor, ProxyFact
from attestation.layers import Layer, Method
from attestation.proxy import Delivered, Denial, Known, Proxy, ProxyProcess
from attestation.trust import Tier
from policies.appraise.appraise import appraise
from policies.appraise.proxy import check_proxy
from policies.appraise.reasons import Verdict
from policies.appraise.violation import violates
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceValues
from tests.unit.policies.test_allowing import applied
from tests.unit.policies.world import BAD, POLICY, REFERENCES, claimed, coverage, governing

BUILD = "5" * 64
ENVOY = Proxy(
    ProxyProcess(BUILD, traced=Known.NO, dumpable=Known.NO, drains_at_once=Known.YES),
    Delivered.EVERYTHING,
    Denial.IN_FORCE,
    ("rbac-inbound-http",),
    resumption_off=Known.YES,
)
ISSUED = (71, 72)
"""Serial numbers of the certificates that the instance was given."""
EVERYTHING = {"requireDrainNow": True, "requireDenyFilters": True, "requireResumptionOff": True}
KNOWN = REFERENCES.model_copy(update={"spec": REFERENCES.spec.model_copy(update={"proxies": {"1.40.0": (BUILD,)}})})


def ruled(demand: str = "required", **rules: Any) -> AttestationPolicy:
    spec = POLICY.spec.model_dump(by_alias=True, mode="json")
    layers = {"proxy": {"demand": demand}}
    changed = PolicySpec.model_validate({**spec, "layers": layers, "proxy": rules or EVERYTHING})
    return POLICY.model_copy(update={"spec": changed})


STRICT = ruled()


def judged(
    seated: Proxy | None,
    policy: AttestationPolicy = STRICT,
    references: ReferenceValues = KNOWN,
    *,
    packed: bytes | None = None,
    age_ms: int = 10,
    served: int | None = None,
) -> Verdict:
    claims, bodies = claimed()
    packed = body.pack(seated) if packed is None else packed
    claim = LayerClaim(Layer.PROXY, body.digest(packed), Method.FULL, age_ms, age_ms, 1)
    watching = CollectorCoverage("proxy", Layer.PROXY, Mechanism.POLL, 1000.0, running=True)
    covered = replace(coverage(), collectors=(*coverage().collectors, watching))
    claims = replace(claims, layers=(*claims.layers, claim), coverage=covered, served=served)
    return appraise(claims, bodies | {claim.digest: packed}, governing(policy, references), issued=ISSUED)


def seen(seated: Proxy) -> ProxyFact:
    return ProxyFact(1.0, seated, Actor(9, "/usr/bin/envoy"), "77 /bin/gdb")


def varied(**process: Any) -> Proxy:
    return replace(ENVOY, process=replace(ENVOY.process, **process))


TAMPER = {"proxy-foreign": varied(executable=BAD), "proxy-traced": varied(traced=Known.YES)}
DRIFT = {
    "proxy-draining": varied(drains_at_once=Known.NO),
    "proxy-undenied": replace(ENVOY, denial=Denial.MISSING),
    "proxy-resuming": replace(ENVOY, resumption_off=Known.NO),
}
UNKNOWN = {
    "executable": varied(executable=""),
    "tracer": varied(traced=Known.UNKNOWN),
    "drain": varied(drains_at_once=Known.UNKNOWN),
    "resumption": replace(ENVOY, resumption_off=Known.UNKNOWN),
}
WRONG = TAMPER | DRIFT | UNKNOWN


def test_an_envoy_as_policy_asks_is_affirmed() -> None:
    verdict = judged(ENVOY)
    assert (verdict.tier, verdict.reasons) == (Tier.AFFIRMING, ())
    assert violates(seen(ENVOY), STRICT, KNOWN) is None


@pytest.mark.parametrize("kind", TAMPER | DRIFT)
def test_an_envoy_that_is_not_as_policy_asks_is_contraindicated_by_its_kind(kind: str) -> None:
    verdict = judged(WRONG[kind])
    assert (verdict.tier, verdict.tamper) == (Tier.CONTRAINDICATED, kind in TAMPER)
    assert [reason.kind for reason in verdict.reasons] == [kind]


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_nobody_can_find_out_is_not_good_enough_and_is_no_tamper(what: str) -> None:
    verdict = judged(UNKNOWN[what])
    assert verdict.tier is Tier.CONTRAINDICATED
    assert [reason.kind for reason in verdict.reasons] == ["proxy-unknown"]
    assert not verdict.tamper


@pytest.mark.parametrize("what", WRONG)
def test_the_sidecar_sees_in_a_proxy_what_the_verifier_sees(what: str) -> None:
    (reason,) = judged(WRONG[what]).reasons
    found = violates(seen(WRONG[what]), STRICT, KNOWN)
    assert found is not None
    assert (found.kind, found.violation_class, found.rule) == (reason.kind, reason.finding_class, reason.rule)
    assert found.text.startswith(reason.text)
    assert "pid 9" in found.text
    assert "/bin/gdb" in found.text


@pytest.mark.parametrize("what", WRONG)
def test_what_is_said_to_allow_a_proxy_does_allow_it(what: str) -> None:
    found = violates(seen(WRONG[what]), STRICT, KNOWN)
    assert found is not None
    assert violates(seen(WRONG[what]), *applied(found.allow, STRICT, KNOWN)) is None


@pytest.mark.parametrize("what", WRONG)
def test_a_layer_that_policy_leaves_off_is_not_judged(what: str) -> None:
    off = ruled("off")
    assert judged(WRONG[what], off).tier is Tier.AFFIRMING
    assert violates(seen(WRONG[what]), off, KNOWN) is None


@pytest.mark.parametrize("served", [None, *ISSUED])
def test_an_envoy_may_serve_what_was_issued_to_its_instance_or_nothing(served: int | None) -> None:
    assert judged(ENVOY, served=served).tier is Tier.AFFIRMING


@pytest.mark.parametrize("seated", [ENVOY, None])
def test_an_envoy_that_serves_a_certificate_of_somebody_elses_is_contraindicated_and_is_no_tamper(
    seated: Proxy | None,
) -> None:
    verdict = judged(seated, served=0xBAD)
    assert (verdict.tier, verdict.tamper) == (Tier.CONTRAINDICATED, False)
    assert [reason.kind for reason in verdict.reasons][:1] == ["proxy-certificate"]
    assert "bad" in verdict.reasons[0].text
    assert judged(seated, ruled("off"), served=0xBAD).tier is Tier.AFFIRMING


def test_of_two_things_that_are_wrong_the_sidecar_tells_the_graver() -> None:
    both = replace(TAMPER["proxy-traced"], denial=Denial.MISSING)
    found = violates(seen(both), STRICT, KNOWN)
    assert found is not None
    assert found.tamper
    assert len(judged(both).reasons) == 2


def test_nobody_in_the_seat_gives_no_tier_where_the_layer_is_required_and_is_no_tamper() -> None:
    verdict = judged(None)
    assert (verdict.tier, verdict.tamper) == (Tier.NONE, False)
    (reason,) = verdict.reasons
    assert reason.kind == "proxy-absent"
    allowed, references = applied(reason.allow, STRICT, KNOWN)
    assert judged(None, allowed, references).tier is Tier.AFFIRMING


def test_a_required_proxy_that_nobody_claims_is_a_layer_that_is_absent() -> None:
    claims, bodies = claimed()
    verdict = appraise(claims, bodies, governing(STRICT, KNOWN))
    assert verdict.tier is Tier.NONE
    assert [reason.kind for reason in verdict.reasons] == ["layer-absent"]


def test_an_old_look_at_the_proxy_is_a_warning() -> None:
    assert judged(ENVOY, age_ms=61_000).tier is Tier.WARNING


def test_an_envoy_that_has_nothing_to_let_in_need_not_deny_yet() -> None:
    assert judged(replace(ENVOY, denial=Denial.PENDING, filters=())).tier is Tier.AFFIRMING


def test_without_any_reference_every_envoy_is_foreign() -> None:
    assert [reason.kind for reason in judged(ENVOY, references=REFERENCES).reasons] == ["proxy-foreign"]
    assert judged(ENVOY, ruled(requireReferenced=False), REFERENCES).tier is Tier.AFFIRMING


@given(st.binary(max_size=200) | st.sampled_from([body.pack(each)[:-1] for each in WRONG.values()]))
def test_a_body_that_does_not_parse_is_never_affirmed(packed: bytes) -> None:
    try:
        tier = judged(None, packed=packed).tier
    except MalformedEvidence:
        return
    assert tier is not Tier.AFFIRMING


STATES = st.builds(
    Proxy,
    st.builds(ProxyProcess, st.sampled_from((BUILD, BAD, "")), *[st.sampled_from(Known)] * 3),
    st.sampled_from(Delivered),
    st.sampled_from(Denial),
    st.just(("one",)),
    st.sampled_from(Known),
)


@given(STATES)
def test_whatever_an_envoy_is_only_one_without_a_finding_is_affirmed(seated: Proxy) -> None:
    findings = check_proxy(seated, STRICT, KNOWN)
    assert (judged(seated).tier is Tier.AFFIRMING) is (not findings)
    good = (BUILD, Known.NO, Known.YES, Known.YES)
    process = seated.process
    asked = (process.executable, process.traced, process.drains_at_once, seated.resumption_off)
    assert (not findings) is (asked == good and seated.denial is not Denial.MISSING)


def test_a_policy_that_says_nothing_of_the_proxy_is_written_as_before_there_was_one() -> None:
    assert "proxy" not in POLICY.model_dump(mode="json", by_alias=True)["spec"]
    assert "proxies" not in REFERENCES.model_dump(mode="json", by_alias=True)["spec"]
    for document in (STRICT, KNOWN):
        assert type(document).model_validate_json(document.model_dump_json(by_alias=True)) == document
