"""What policy asks of a fence, and what it makes of what was refused, and of a fence that is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from attestation.channel import Fence
from attestation.coverage import EGRESS, FENCE, CollectorCoverage, Coverage, Mechanism
from attestation.facts import Actor, EgressFact, Passage
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from policies.appraise.appraise import appraise
from policies.appraise.violation import violates
from policies.model.policy import AttestationPolicy, PolicySpec
from sidecar.governing import fence
from tests.unit.policies.world import POLICY, PYTHON, REFERENCES, claimed, coverage, governing

LISTED = "10.0.0.0/8:5432"
REFUSED = EgressFact(1.0, Actor(9, PYTHON), "tcp", "203.0.113.9", 443, passage=Passage.REFUSED)
RAW = EgressFact(1.0, Actor(9, PYTHON), "raw", "", 0, passage=Passage.REFUSED)


def asking(deny: str = "required", **changes: Any) -> AttestationPolicy:
    spec = POLICY.spec.model_dump(by_alias=True, exclude_unset=True) | {"mode": "enforce"}
    return POLICY.model_copy(
        update={"spec": PolicySpec.model_validate(spec | {"egress": {"allowed": [LISTED], "deny": deny}} | changes)}
    )


def with_fence(*, running: bool) -> Coverage:
    looks = CollectorCoverage(EGRESS, Layer.PROCESSES, Mechanism.POLL, 1000.0, running=True)
    stands = CollectorCoverage(FENCE, Layer.PROCESSES, Mechanism.BPF, 5.0, running)
    return replace(coverage(), collectors=(*coverage().collectors, looks, stands))


UNFENCED = replace(with_fence(running=True), collectors=with_fence(running=True).collectors[:-1])
SHUTS: dict[str, Any] = {"egress": {}, "containment": {"tamper": "deny-egress"}}


@pytest.mark.parametrize(
    ("policy", "watchers", "affirmed"),
    [
        (asking("required", egress={"deny": "required"}), UNFENCED, True),
        (asking(**SHUTS), UNFENCED, False),
        (asking(**SHUTS), with_fence(running=True), True),
        (asking(**SHUTS, mode="observe"), UNFENCED, True),
    ],
)
def test_a_fence_is_required_by_what_it_would_refuse_be_that_by_a_list_or_all_of_a_contained_workload(
    policy: AttestationPolicy, watchers: Coverage, affirmed: bool
) -> None:
    verdict = appraise(*claimed(watchers=watchers), governing(policy))
    assert (verdict.tier is Tier.AFFIRMING) is affirmed
    if not affirmed:
        (found,) = verdict.reasons
        assert (found.kind, found.subject) == (Signal.COVERAGE_WEAK, "coverage.fence")
        assert found.rule.endswith("spec.containment")
        assert "deny: best-effort" not in found.allow


def test_what_was_refused_is_a_tamper_of_its_own_kind_as_it_would_have_been_by_passing() -> None:
    found = violates(REFUSED, asking(), REFERENCES)
    assert found is not None
    assert (found.kind, found.tamper, found.subject) == (Signal.EGRESS_REFUSED, True, PYTHON)
    assert "that was refused" in found.text
    told = yaml.safe_load(found.allow)["spec"]
    assert violates(REFUSED, asking(egress=told["egress"]), REFERENCES) is None
    milder = asking(onViolation={"egress-refused": "drift"})
    assert (drift := violates(REFUSED, milder, REFERENCES)) is not None and not drift.tamper
    assert (made := violates(replace(REFUSED, passage=Passage.MADE), milder, REFERENCES)) is not None and made.tamper


def test_a_socket_of_which_no_destination_can_say_anything_is_one_whatever_is_listed() -> None:
    found = violates(RAW, asking(egress={"allowed": ["0.0.0.0/0", "::/0"], "deny": "required"}), REFERENCES)
    assert found is not None
    assert (found.kind, found.found) == (Signal.EGRESS_REFUSED, "raw")
    assert "deny: best-effort" in found.allow


def test_what_a_library_tries_to_find_the_nearest_of_several_addresses_is_none() -> None:
    assert violates(replace(REFUSED, protocol="udp", passage=Passage.UNSENT), asking(), REFERENCES) is None


def test_what_is_refused_to_a_contained_workload_is_none_where_policy_lists_it_or_lists_nothing() -> None:
    listed = replace(REFUSED, host="10.1.2.3", port=5432)
    assert violates(listed, asking(), REFERENCES) is None
    assert violates(REFUSED, asking(**SHUTS), REFERENCES) is None


@pytest.mark.parametrize(
    ("changes", "stands"),
    [
        ({}, Fence.LISTED),
        ({"mode": "audit"}, Fence.NONE),
        ({"layers": {"processes": {"demand": "off"}}}, Fence.NONE),
        ({"egress": {"deny": "required"}}, Fence.NONE),
        (SHUTS, Fence.READY),
        ({"containment": {"drift": "deny-egress"}}, Fence.LISTED),
        ({"containment": {"tamper": "freeze"}, "egress": {}}, Fence.NONE),
    ],
)
def test_a_fence_stands_where_something_is_to_be_refused_or_may_have_to_be(
    changes: dict[str, Any], stands: Fence
) -> None:
    assert fence(asking(**changes).spec) is stands
