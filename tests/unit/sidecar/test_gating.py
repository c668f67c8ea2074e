"""What the measurer's gate is told: the digests of the reference values, where policy has one."""

from __future__ import annotations

import os

import pytest

from attestation.channel import Gate
from policies.model.inheritance import effective
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceSpec
from sidecar.gating import Gating
from sidecar.governing import Governed
from tests.unit.policies.world import BAD, GOOD, POLICY, PYTHON, REFERENCES, REGISTRATION


def governed(epoch: int = 1, gate: str = "required", mode: str = "enforce", *also: str) -> Governed:
    spec = PolicySpec.model_validate({"mode": mode, "processes": {"gate": gate}})
    policy = AttestationPolicy(metadata=POLICY.metadata, spec=spec)
    executables = {**REFERENCES.spec.executables, PYTHON: (GOOD[PYTHON], *also)}
    listed = REFERENCES.model_copy(update={"spec": ReferenceSpec(executables=executables)})
    return Governed(epoch, policy, effective(listed), REGISTRATION)


def digests(descriptor: int) -> set[str]:
    content = os.pread(descriptor, 1 << 16, 0)
    return {content[at : at + 32].hex() for at in range(0, len(content), 32)}


class Ordered:
    """What a measurer is told: the lists, in order; None where it is to let everything run."""

    def __init__(self) -> None:
        self.lists: list[set[str] | None] = []
        self.gating = Gating(self._take)

    def _take(self, gate: Gate, descriptor: int | None) -> None:
        assert gate.stands == (descriptor is not None)
        self.lists.append(digests(descriptor) if descriptor is not None else None)
        if descriptor is not None:
            with pytest.raises(OSError, match="not permitted"):
                os.write(descriptor, b"more")


LISTED = {each for digests in REFERENCES.spec.executables.values() for each in digests}


def test_the_list_is_every_digest_that_an_executable_may_have_and_nobody_can_change_it() -> None:
    ordered = Ordered()
    ordered.gating.rule(governed())
    assert ordered.lists == [LISTED]


def test_another_list_is_told_when_it_is_another_and_only_then() -> None:
    ordered = Ordered()
    for epoch, also in enumerate(((), (), (BAD,), (BAD,))):
        ordered.gating.rule(governed(epoch, "required", "enforce", *also))
    assert ordered.lists == [LISTED, LISTED | {BAD}]


def test_one_who_never_asked_is_told_nothing_and_one_who_asks_no_more_is_told_so() -> None:
    ordered = Ordered()
    ordered.gating.rule(governed(gate="off"))
    ordered.gating.repeat()
    assert ordered.lists == []
    ordered.gating.rule(governed(2))
    ordered.gating.rule(governed(3, gate="off"))
    assert ordered.lists == [LISTED, None]


@pytest.mark.parametrize("mode", ["observe", "audit"])
def test_nothing_is_refused_where_policy_does_not_enforce(mode: str) -> None:
    ordered = Ordered()
    ordered.gating.rule(governed(mode=mode))
    assert ordered.lists == []


def test_a_measurer_that_was_started_anew_is_told_what_stands() -> None:
    ordered = Ordered()
    ordered.gating.rule(governed())
    ordered.gating.repeat()
    assert ordered.lists == [LISTED, LISTED]
