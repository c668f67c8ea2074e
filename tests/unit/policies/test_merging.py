"""Merging many selections out of one set of policies: nobody's outcome depends on what others share with him."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InvalidConfiguration
from policies.model.merge import Applying, Merged, Merging, Rank, merge
from policies.model.policy import DEFAULT_LAYERS, PolicySpec
from policies.model.statements import assembled, joined, stated
from tests.unit.policies.test_merge import SPECS, policy

RANKS = st.sampled_from([Rank.MESH, Rank.NAMESPACE, Rank.WORKLOAD])
SELECTIONS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True), min_size=1, max_size=6)


def outcome(merged: Merged) -> object:
    return merged.policy.model_dump_json(by_alias=True), merged.applying, [str(each) for each in merged.conflicts]


def plainly(policies: list[Applying]) -> tuple[PolicySpec, dict[str, set[str]]]:
    """What is stated by all together, and by whom: joined one after the other, with nothing shared."""
    ordered = sorted(policies, key=lambda each: each.key)
    said = [(each, stated(each.policy.spec)) for each in ordered]
    together = reduce(joined, [statements for _, statements in said])
    by: dict[str, set[str]] = {}
    for place, statement in together.items():
        own = [(each, statements[place].value) for each, statements in said if place in statements]
        alone = [each for each, value in own if value == statement.value]
        by[place] = {each.policy.metadata.name for each in alone or [each for each, _ in own]}
    return assembled(together), by


def refusal(error: InvalidConfiguration) -> object:
    return error.sentence


@given(st.lists(st.tuples(RANKS, SPECS), min_size=5, max_size=5), SELECTIONS)
def test_a_selection_merges_among_others_as_it_merges_alone(
    written: list[tuple[Rank, Mapping[str, Any]]], selections: list[list[int]]
) -> None:
    every = [Applying(policy(f"p{number}", each), rank) for number, (rank, each) in enumerate(written)]
    merging = Merging()
    for selection in selections:
        applying = [every[number] for number in selection]
        try:
            alone = outcome(merge(applying))
        except InvalidConfiguration as error:
            alone = refusal(error)
        try:
            among = outcome(merging.of(applying))
        except InvalidConfiguration as error:
            among = refusal(error)
        assert among == alone


@given(st.lists(st.tuples(RANKS, SPECS), min_size=2, max_size=5))
def test_what_comes_of_it_is_what_joining_one_after_the_other_comes_to(
    written: list[tuple[Rank, Mapping[str, Any]]],
) -> None:
    every = [Applying(policy(f"p{number}", each), rank) for number, (rank, each) in enumerate(written)]
    spec, by = plainly(every)
    try:
        merged = merge(every).policy
    except InvalidConfiguration:
        return
    assert {place: {each.name for each in names} for place, names in merged.origins.items()} == by
    assert merged.spec == spec.model_copy(update={"layers": {**DEFAULT_LAYERS, **spec.layers}})


@given(SPECS, SPECS)
def test_whom_the_same_policies_rule_has_the_same_outcome_not_one_like_it(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    both = [Applying(policy("one", one), Rank.MESH), Applying(policy("two", other), Rank.WORKLOAD)]
    merging = Merging()
    try:
        first = merging.of(both)
    except InvalidConfiguration:
        return
    assert merging.of(reversed(both)) is first
