"""Reference values that have expired affirm nothing, whatever they would have said the moment before."""

from __future__ import annotations

import pytest

from attestation.trust import UNKNOWN, Tier
from policies.appraise.appraise import appraise
from policies.appraise.expiry import in_time
from policies.appraise.reasons import Verdict
from policies.model.policy import AttestationPolicy
from tests.unit.policies.world import BAD, MAIN, PAGE, POLICY, REFERENCES, claimed, entry, governing

ENDS = 1_796_083_200
EXPIRING = REFERENCES.model_copy(update={"spec": REFERENCES.spec.model_copy(update={"expires": ENDS})})


def judged(now: float, content: str | None = None, policy: AttestationPolicy = POLICY) -> Verdict:
    claims, bodies = claimed((entry(MAIN, content), entry(PAGE)))
    ruling = governing(policy, EXPIRING)
    return in_time(appraise(claims, bodies, ruling), ruling, now)


def test_what_has_not_expired_affirms_to_the_last_moment() -> None:
    verdict = judged(ENDS - 0.001)
    assert verdict.tier is Tier.AFFIRMING
    assert verdict.reasons == ()


def test_from_its_end_on_it_affirms_nothing_and_says_since_when_and_where() -> None:
    verdict = judged(ENDS)
    assert verdict.tier is Tier.NONE
    assert (verdict.vector.file_system, verdict.vector.executables) == (UNKNOWN, UNKNOWN)
    (reason,) = verdict.reasons
    assert reason.kind == "references-expired"
    assert reason.text.startswith("ReferenceValues/web: expired at 2026-12-01T00:00:00Z")
    assert reason.rule == "ReferenceValues/web: spec.expires"
    assert not verdict.tamper


def test_what_speaks_against_a_workload_still_does() -> None:
    verdict = judged(ENDS + 1, BAD)
    assert verdict.tier is Tier.CONTRAINDICATED
    assert [each.kind for each in verdict.reasons] == ["file-modified", "references-expired"]


def test_what_nothing_is_held_against_does_not_expire() -> None:
    off = {layer: {"demand": "off"} for layer in ("files", "processes", "proxy")}
    policy = AttestationPolicy.model_validate(
        {"metadata": {"name": "lax"}, "spec": {"layers": off, "files": {"include": ["/srv/app"]}}}
    )
    claims, bodies = claimed()
    ruling = governing(policy, EXPIRING)
    before = appraise(claims, bodies, ruling)
    assert in_time(before, ruling, ENDS + 1) == before


@pytest.mark.parametrize("layer", ["files", "processes"])
def test_a_layer_alone_is_enough(layer: str) -> None:
    other = {"files": "processes", "processes": "files"}[layer]
    policy = POLICY.model_copy(
        update={
            "spec": POLICY.spec.model_validate(
                {"mode": "enforce", "files": {"include": ["/srv/app"]}, "layers": {other: {"demand": "off"}}}
            )
        }
    )
    assert judged(ENDS, policy=policy).tier is Tier.NONE
