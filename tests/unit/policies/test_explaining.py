"""Each value that rules a workload names the documents behind it, and those whose values it prevailed over."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InvalidConfiguration
from policies.model.explaining import Value, explained
from policies.model.fields import written
from policies.model.governing import Governing
from policies.model.inheritance import effective
from policies.model.load import load
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.registration import RegistrationSpec, WorkloadRegistration
from policies.model.statements import joined, stated
from tests.unit.policies.test_merge import SPECS, policy
from tests.unit.policies.world import REFERENCES

FLOOR = """\
kind: AttestationPolicy
metadata: {name: floor, namespace: proofbeat-system}
spec:
  mode: enforce
  freshness: 60s
  files: {volatile: [/srv/cache/**]}
"""
OWN = """\
kind: AttestationPolicy
metadata: {name: own}
spec:
  freshness: 5m
  files:
    include: [/srv]
    volatile: ['*.tmp']
"""
REST = """\
kind: ReferenceValues
metadata: {name: web}
---
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: spiffe://example.org/web, references: web}
"""


def told(folder: Path, *documents: str, folders: bool = False) -> dict[str, Value]:
    (folder / "p.yaml").write_text("---\n".join((*documents, REST)))
    answer = explained(load([folder]).governing["web"], folders=folders)
    return {each.place: each for each in answer.values}


def test_a_value_names_the_policy_and_line_it_comes_from_and_whom_it_prevailed_over(tmp_path: Path) -> None:
    value = told(tmp_path, FLOOR, OWN)["freshness"]
    assert value.value == "1m"
    assert [(each.policy, each.at, each.value) for each in value.by] == [
        ("proofbeat-system/floor", "p.yaml:5:3", "1m"),
    ]
    assert [(each.policy, each.at, each.value) for each in value.overruled] == [("own", "p.yaml:11:3", "5m")]


def test_what_nobody_states_is_a_default_even_of_a_section_that_somebody_does(tmp_path: Path) -> None:
    values = told(tmp_path, FLOOR, OWN)
    assert values["deadman"].by == values["files.caches"].by == ()
    assert (values["deadman"].value, values["files.caches"].value) == ("5s", "[]")


def test_a_value_that_comes_from_several_together_names_each_with_its_share(tmp_path: Path) -> None:
    value = told(tmp_path, FLOOR, OWN)["files.volatile"]
    assert value.value == "['*.tmp'] and within [/srv/cache/**]"
    assert [(each.policy, each.value) for each in value.by] == [
        ("proofbeat-system/floor", "[/srv/cache/**]"),
        ("own", "['*.tmp']"),
    ]


def test_a_bound_that_nobody_exempts_anything_under_is_told_as_exempting_nothing(tmp_path: Path) -> None:
    bound = FLOOR.replace("volatile: [/srv/cache/**]", "within: [{volatile: [/srv/cache/**]}]")
    own = OWN.replace("    volatile: ['*.tmp']\n", "")
    value = told(tmp_path, bound, own)["files.volatile"]
    assert value.value == "[] and within [/srv/cache/**]"
    assert [each.policy for each in value.by] == ["proofbeat-system/floor"]


def test_of_a_single_policy_what_it_states_is_told_from_what_it_leaves_to_the_defaults(tmp_path: Path) -> None:
    values = told(tmp_path, OWN)
    assert [place for place, each in values.items() if each.by] == ["freshness", "files.volatile", "files.include"]


def test_files_are_told_with_their_folders_only_to_who_has_the_files(tmp_path: Path) -> None:
    (said,) = told(tmp_path, OWN, folders=True)["freshness"].by
    assert said.at == f"{tmp_path}/p.yaml:4:3"


@given(st.lists(SPECS, min_size=1, max_size=4))
def test_those_named_behind_a_value_bring_it_about_without_the_others(writings: list[Mapping[str, Any]]) -> None:
    applying = [Applying(policy(f"p{number}", each), Rank.NAMESPACE) for number, each in enumerate(writings)]
    try:
        merged = merge(applying)
    except InvalidConfiguration:
        return
    by_name = {each.policy.metadata.name: stated(each.policy.spec) for each in applying}
    answer = explained(
        Governing(_REGISTRATION, merged.policy, effective(REFERENCES), (), merged.applying, merged.conflicts)
    )
    for value in answer.values:
        behind = [by_name[each.policy] for each in value.by]
        if behind:
            outcome = reduce(joined, behind)[value.place].value
            assert sorted(written(value.place, outcome)) == sorted(value.value)
        else:
            assert not value.overruled
            assert all(value.place not in own for own in by_name.values())


_REGISTRATION = WorkloadRegistration(
    metadata=Metadata(name="web"), spec=RegistrationSpec(spiffe_id="spiffe://example.org/web", references="web")
)
