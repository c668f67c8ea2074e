"""What policy asks of a gate, and what it makes of one that refuses, and of one that is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.coverage import EXECUTIONS, GATE, CollectorCoverage, Coverage, Mechanism
from attestation.facts import Actor, CollectorFact, CollectorState, RefusalFact
from attestation.layers import Layer
from attestation.trust import Tier
from attestation.violation import ViolationClass
from policies.appraise.appraise import appraise
from policies.appraise.violation import violates
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, Demand, PolicySpec
from tests.unit.policies.world import BAD, GOOD, POLICY, PYTHON, REFERENCES, claimed, coverage, governing

REFUSED = RefusalFact(1.0, "/tmp/x", BAD, Actor(9, PYTHON, 1))


def asking(gate: str = "required", **changes: Any) -> AttestationPolicy:
    spec = POLICY.spec.model_dump(by_alias=True, exclude_unset=True) | {"mode": "enforce"} | changes
    return POLICY.model_copy(update={"spec": PolicySpec.model_validate(spec | {"processes": {"gate": gate}})})


def with_gate(*, running: bool) -> Coverage:
    watched = coverage()
    gate = CollectorCoverage(GATE, Layer.PROCESSES, Mechanism.FANOTIFY, 0.0, running=running)
    return replace(watched, collectors=(*watched.collectors, gate))


@pytest.mark.parametrize(
    ("gate", "mode", "watchers", "affirmed"),
    [
        ("off", "enforce", coverage(), True),
        ("best-effort", "enforce", coverage(), True),
        ("best-effort", "enforce", with_gate(running=False), True),
        ("required", "enforce", coverage(), False),
        ("required", "enforce", with_gate(running=False), False),
        ("required", "enforce", with_gate(running=True), True),
        ("required", "audit", coverage(), True),
    ],
)
def test_nothing_is_affirmed_without_a_gate_where_one_is_required_and_policy_enforces(
    gate: str, mode: str, watchers: Coverage, affirmed: bool
) -> None:
    verdict = appraise(*claimed(watchers=watchers), governing(asking(gate, mode=mode)))
    assert (verdict.tier is Tier.AFFIRMING) is affirmed
    if not affirmed:
        (found,) = verdict.reasons
        assert (found.kind, found.subject) == ("coverage-weak", "processes.gate")
        assert found.rule.endswith("spec.processes.gate")
        assert "gate: best-effort" in found.allow


def test_a_gate_that_does_not_stand_is_no_collector_of_the_processes_layer() -> None:
    told = with_gate(running=False)
    assert told.weakest[Layer.PROCESSES]
    assert not told.gated
    assert told.profile is coverage().profile
    assert EXECUTIONS != GATE


@pytest.mark.parametrize("state", [CollectorState.DEAD, CollectorState.OVERFLOWED])
@pytest.mark.parametrize("gate", list(Demand))
def test_a_gate_that_ends_closes_at_once_where_it_is_required_and_nowhere_else(
    gate: Demand, state: CollectorState
) -> None:
    found = violates(CollectorFact(1.0, GATE, state, "it ended"), asking(gate), REFERENCES)
    assert (found is not None) is (gate is Demand.REQUIRED)
    if found is not None:
        assert not found.tamper
        assert found.rule.endswith("spec.processes.gate")


def test_what_was_refused_is_a_tamper_of_its_own_kind_as_it_would_have_been_by_running() -> None:
    found = violates(REFUSED, asking(), REFERENCES)
    assert found is not None
    assert (found.kind, found.violation_class) == ("execution-refused", ViolationClass.TAMPER)
    assert "it was refused before it ran" in found.text
    assert f"wanted by {PYTHON} (9)" in found.text
    assert "kind: ReferenceValues" in found.allow
    assert found.found == BAD
    nobody = violates(replace(REFUSED, digest="", path=PYTHON), asking(), REFERENCES)
    assert nobody is not None, "what could not be read in time was refused all the same"


def test_what_was_refused_is_none_of_it_once_policy_allows_it_or_asks_for_nothing() -> None:
    assert violates(replace(REFUSED, path=PYTHON, digest=GOOD[PYTHON]), asking(), REFERENCES) is None
    off = asking(layers={"processes": {"demand": "off"}})
    assert violates(REFUSED, off, REFERENCES) is None


def test_a_policy_that_says_nothing_of_a_gate_is_written_as_one_that_knows_of_none() -> None:
    assert "gate" not in PolicySpec.model_validate({"processes": {"gate": "off"}}).model_dump_json(by_alias=True)
    assert PolicySpec().gate is Demand.OFF


@given(st.lists(st.sampled_from(list(Demand)), min_size=1, max_size=4))
def test_of_several_policies_the_one_that_asks_for_most_holds(asked: list[Demand]) -> None:
    named = [
        AttestationPolicy(metadata=Metadata(name=f"p{at}"), spec=asking(each).spec) for at, each in enumerate(asked)
    ]
    policies = [Applying(each, Rank.WORKLOAD) for each in named]
    strictness = [Demand.OFF, Demand.BEST_EFFORT, Demand.REQUIRED]
    assert merge(policies).policy.spec.gate is max(asked, key=strictness.index)
