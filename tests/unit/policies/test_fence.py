"""What policy asks of a fence, and what it makes of what was refused, and of a fence that is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attestation.channel import Fence
from attestation.coverage import EGRESS, FENCE, CollectorCoverage, Coverage, Mechanism
from attestation.facts import Actor, CollectorFact, CollectorState, EgressFact, Passage
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from policies.appraise.appraise import appraise
from policies.appraise.violation import violates
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, Demand, PolicySpec
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
        (asking("off"), UNFENCED, True),
        (asking("best-effort"), UNFENCED, True),
        (asking("best-effort"), with_fence(running=False), True),
        (asking("required"), UNFENCED, False),
        (asking("required"), with_fence(running=False), False),
        (asking("required"), with_fence(running=True), True),
        (asking("required", mode="audit"), UNFENCED, True),
        (asking("required", egress={"deny": "required"}), UNFENCED, True),
        (asking(**SHUTS), UNFENCED, False),
        (asking(**SHUTS), with_fence(running=True), True),
        (asking(**SHUTS, mode="observe"), UNFENCED, True),
    ],
)
def test_nothing_is_affirmed_without_a_fence_where_one_is_required_and_policy_enforces(
    policy: AttestationPolicy, watchers: Coverage, affirmed: bool
) -> None:
    verdict = appraise(*claimed(watchers=watchers), governing(policy))
    assert (verdict.tier is Tier.AFFIRMING) is affirmed
    if not affirmed:
        (found,) = verdict.reasons
        assert (found.kind, found.subject) == (Signal.COVERAGE_WEAK, "coverage.fence")
        asked_by_list = policy.spec.egress.allowed is not None
        assert found.rule.endswith("spec.egress.deny" if asked_by_list else "spec.containment")
        assert ("deny: best-effort" in found.allow) is asked_by_list


def test_a_fence_that_does_not_stand_is_no_collector_of_the_processes_layer() -> None:
    told = with_fence(running=False)
    assert told.weakest[Layer.PROCESSES]
    assert not told.fenced


@pytest.mark.parametrize("state", [CollectorState.DEAD, CollectorState.OVERFLOWED])
@pytest.mark.parametrize("deny", list(Demand))
def test_a_fence_that_falls_closes_at_once_where_it_is_required_and_nowhere_else(
    deny: Demand, state: CollectorState
) -> None:
    found = violates(CollectorFact(1.0, FENCE, state, "it fell"), asking(deny), REFERENCES)
    assert (found is not None) is (deny is Demand.REQUIRED)
    if found is not None:
        assert not found.tamper
        assert found.rule.endswith("spec.egress.deny")


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


def test_a_policy_that_says_nothing_of_a_fence_is_written_as_one_that_knows_of_none() -> None:
    assert "deny" not in PolicySpec.model_validate({"egress": {"deny": "off"}}).model_dump_json(by_alias=True)
    assert PolicySpec().fence is Demand.OFF


@given(st.lists(st.sampled_from(list(Demand)), min_size=1, max_size=4))
def test_of_several_policies_the_one_that_asks_for_most_holds(asked: list[Demand]) -> None:
    named = [
        AttestationPolicy(metadata=Metadata(name=f"p{at}"), spec=asking(each).spec) for at, each in enumerate(asked)
    ]
    policies = [Applying(each, Rank.WORKLOAD) for each in named]
    strictness = [Demand.OFF, Demand.BEST_EFFORT, Demand.REQUIRED]
    assert merge(policies).policy.spec.denies is max(asked, key=strictness.index)
