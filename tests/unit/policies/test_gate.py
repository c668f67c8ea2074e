"""What policy asks of a gate, and what it makes of one that refuses, and of one that is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from attestation.coverage import GATE, CollectorCoverage, Coverage, Mechanism
from attestation.facts import Actor, RefusalFact
from attestation.layers import Layer
from attestation.violation import ViolationClass
from policies.appraise.violation import violates
from policies.model.policy import AttestationPolicy, PolicySpec
from tests.unit.policies.world import BAD, GOOD, POLICY, PYTHON, REFERENCES, coverage

REFUSED = RefusalFact(1.0, "/tmp/x", BAD, Actor(9, PYTHON, 1))


def asking(gate: str = "required", **changes: Any) -> AttestationPolicy:
    spec = POLICY.spec.model_dump(by_alias=True, exclude_unset=True) | {"mode": "enforce"} | changes
    return POLICY.model_copy(update={"spec": PolicySpec.model_validate(spec | {"processes": {"gate": gate}})})


def with_gate(*, running: bool) -> Coverage:
    watched = coverage()
    gate = CollectorCoverage(GATE, Layer.PROCESSES, Mechanism.FANOTIFY, 0.0, running=running)
    return replace(watched, collectors=(*watched.collectors, gate))


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
