"""Two collectors do not only tell, they refuse: a gate executions, a fence destinations. What policy asks of either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.coverage import FENCE, GATE, Coverage
from attestation.facts import CollectorFact, CollectorState
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from policies.appraise.appraise import appraise
from policies.appraise.violation import violates
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, Demand, PolicySpec
from tests.unit.policies import test_fence, test_gate
from tests.unit.policies.world import REFERENCES, claimed, coverage, governing


@dataclass(frozen=True)
class Blocker:
    """A collector that refuses. said: where of spec it is asked for. subject: as what a verdict misses it."""

    name: str
    said: tuple[str, str]
    subject: str
    asking: Callable[..., AttestationPolicy]
    missing: Coverage
    watching: Callable[..., Coverage]
    stands: Callable[[Coverage], bool]
    demand: Callable[[PolicySpec], Demand]

    def watched(self, running: bool | None) -> Coverage:
        """Coverage with it standing, fallen, or never begun (None)."""
        return self.missing if running is None else self.watching(running=running)


BLOCKERS = [
    Blocker(
        GATE,
        ("processes", "gate"),
        "processes.gate",
        test_gate.asking,
        coverage(),
        test_gate.with_gate,
        lambda told: told.gated,
        lambda spec: spec.gate,
    ),
    Blocker(
        FENCE,
        ("egress", "deny"),
        "coverage.fence",
        test_fence.asking,
        test_fence.UNFENCED,
        test_fence.with_fence,
        lambda told: told.fenced,
        lambda spec: spec.fence,
    ),
]
EITHER = pytest.mark.parametrize("blocker", BLOCKERS, ids=lambda each: each.name)


@pytest.mark.parametrize(
    ("demand", "mode", "running", "affirmed"),
    [
        ("off", "enforce", None, True),
        ("best-effort", "enforce", None, True),
        ("best-effort", "enforce", False, True),
        ("required", "enforce", None, False),
        ("required", "enforce", False, False),
        ("required", "enforce", True, True),
        ("required", "audit", None, True),
    ],
)
@EITHER
def test_nothing_is_affirmed_without_it_where_it_is_required_and_policy_enforces(
    blocker: Blocker, demand: str, mode: str, running: bool | None, affirmed: bool
) -> None:
    asked = governing(blocker.asking(demand, mode=mode))
    verdict = appraise(*claimed(watchers=blocker.watched(running)), asked)
    assert (verdict.tier is Tier.AFFIRMING) is affirmed
    if not affirmed:
        (found,) = verdict.reasons
        assert (found.kind, found.subject) == (Signal.COVERAGE_WEAK, blocker.subject)
        assert found.rule.endswith(f"spec.{'.'.join(blocker.said)}")
        assert f"{blocker.said[-1]}: best-effort" in found.allow


@EITHER
def test_where_it_does_not_stand_it_is_no_collector_of_the_processes_layer(blocker: Blocker) -> None:
    told = blocker.watched(running=False)
    assert told.weakest[Layer.PROCESSES]
    assert not blocker.stands(told)
    assert told.profile is blocker.missing.profile


@pytest.mark.parametrize("state", [CollectorState.DEAD, CollectorState.OVERFLOWED])
@pytest.mark.parametrize("demand", list(Demand))
@EITHER
def test_its_end_closes_at_once_where_it_is_required_and_nowhere_else(
    blocker: Blocker, demand: Demand, state: CollectorState
) -> None:
    found = violates(CollectorFact(1.0, blocker.name, state, "it ended"), blocker.asking(demand), REFERENCES)
    assert (found is not None) is (demand is Demand.REQUIRED)
    if found is not None:
        assert not found.tamper
        assert found.rule.endswith(f"spec.{'.'.join(blocker.said)}")


@EITHER
def test_a_policy_that_says_nothing_of_it_is_written_as_one_that_knows_of_none(blocker: Blocker) -> None:
    room, word = blocker.said
    assert f'"{word}"' not in PolicySpec.model_validate({room: {word: "off"}}).model_dump_json(by_alias=True)
    assert blocker.demand(PolicySpec()) is Demand.OFF


@given(blocker=st.sampled_from(BLOCKERS), asked=st.lists(st.sampled_from(list(Demand)), min_size=1, max_size=4))
def test_of_several_policies_the_one_that_asks_for_most_holds(blocker: Blocker, asked: list[Demand]) -> None:
    named = [
        AttestationPolicy(metadata=Metadata(name=f"p{at}"), spec=blocker.asking(each).spec)
        for at, each in enumerate(asked)
    ]
    merged = merge([Applying(each, Rank.WORKLOAD) for each in named])
    strictness = [Demand.OFF, Demand.BEST_EFFORT, Demand.REQUIRED]
    assert blocker.demand(merged.policy.spec) is max(asked, key=strictness.index)
