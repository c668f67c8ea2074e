"""Merging: whatever policies there are, and however they come together, the stricter side wins field by field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InvalidConfiguration
from policies.model.classes import FileClass, class_of
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, Demand, EffectivePolicy, PolicySpec
from policies.model.statements import Stated, assembled, joined, stated

PATTERNS = st.lists(st.sampled_from(["/srv/**", "/srv/cache/**", "*.log", "/srv/*x", "/srv/y*"]), max_size=3)
PATHS = ["/srv/a", "/srv/cache/a", "/srv/cache/a.log", "/srv/yx", "/tmp/a.log"]
KEYS = [
    "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
    "MCowBQYDK2VwAyEA/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
]
"""Of RFC 8032's first three test vectors."""
OPERATORS: st.SearchStrategy[dict[str, str]] = st.sampled_from(
    [{"name": name, "key": key} for name, key in zip(["ada", "ada", "bob"], KEYS, strict=True)]
)
"""A key has the same name in all policies; otherwise they cannot be merged."""


def _executable(each: Any) -> str:
    return str(each["executable"])


def _key(operator: Any) -> Any:
    return operator["key"]


RULES = {
    "one": {"that": "processes.root == 0", "message": "nothing runs as root"},
    "two": {"that": "proxy.seated", "message": "somebody holds the key", "class": "tamper", "layer": "proxy"},
}


ALERTS = [
    {"detector": "falco", "priority": "critical", "class": "tamper"},
    {"detector": "falco", "rules": ["*"], "class": "drift"},
    {"detector": "tetragon", "rules": ["files"], "without": ["files"], "tags": ["a"], "class": "observe"},
]
DESTINATIONS = ["10.0.0.0/8", "10.1.0.0/16:443", "10.1.2.3:400-500/tcp", "0.0.0.0/0:53/udp", "[2001:db8::/32]:443"]


def durations(*choices: str) -> st.SearchStrategy[str]:
    return st.sampled_from(choices)


FILES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "include": st.lists(st.sampled_from(["/srv", "/etc", "/opt"]), max_size=2, unique=True),
        "volatile": PATTERNS,
        "caches": PATTERNS,
        "within": st.lists(st.fixed_dictionaries({}, optional={"volatile": PATTERNS}), max_size=2),
    },
)

SPECS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["observe", "audit", "enforce"]),
        "interval": durations("1s", "5s", "10s"),
        "freshness": durations("20s", "60s", "5m"),
        "deadman": durations("1s", "3s"),
        "escalateAfter": durations("20ms", "250ms"),
        "connections": st.sampled_from(["cut", "drain"]),
        "layers": st.dictionaries(
            st.sampled_from(["files", "processes", "proxy"]),
            st.fixed_dictionaries(
                {},
                optional={
                    "demand": st.sampled_from(["required", "best-effort", "off"]),
                    "maxAge": durations("10s", "60s"),
                },
            ),
        ),
        "files": FILES,
        "processes": st.fixed_dictionaries(
            {},
            optional={
                "forbidDeleted": st.booleans(),
                "mostCapabilities": st.sampled_from(["0", "1", "6", "ff"]),
                "shells": st.lists(st.sampled_from(["/srv/*", "repl"]), max_size=2, unique=True),
                "shellsOnSockets": st.lists(st.sampled_from(["/bin/sh", "repl", "/srv/*"]), max_size=2, unique=True),
            },
        ),
        "egress": st.fixed_dictionaries(
            {},
            optional={
                "allowed": st.lists(st.sampled_from(DESTINATIONS), max_size=3),
                "every": durations("500ms", "2s"),
            },
        ),
        "memory": st.fixed_dictionaries(
            {},
            optional={
                "period": durations("1s", "5s"),
                "jit": st.lists(
                    st.fixed_dictionaries(
                        {
                            "executable": st.sampled_from(["/usr/bin/node", "/usr/bin/java"]),
                            "most": st.sampled_from(["64MiB", "1GiB"]),
                            "writable": st.booleans(),
                            "memfd": st.booleans(),
                        }
                    ),
                    max_size=2,
                    unique_by=_executable,
                ),
            },
        ),
        "detectors": st.fixed_dictionaries(
            {},
            optional={
                "alerts": st.lists(st.sampled_from(ALERTS), max_size=2),
                "sources": st.dictionaries(
                    st.sampled_from(["falco", "tetragon"]),
                    st.fixed_dictionaries(
                        {},
                        optional={
                            "demand": st.sampled_from(["best-effort", "required"]),
                            "silence": durations("30s", "5m"),
                        },
                    ),
                ),
                "unnamed": st.sampled_from(["observe", "ours"]),
            },
        ),
        "coverage": st.fixed_dictionaries(
            {},
            optional={
                "cutting": st.sampled_from(["destroy", "kill", "capped"]),
                "isolation": st.lists(st.sampled_from(["non-dumpable", "no-tracing"]), max_size=2, unique=True),
            },
        ),
        "rules": st.sets(st.sampled_from(["one", "two"])).map(lambda names: {name: RULES[name] for name in names}),
        "warnings": st.sampled_from(["serve", "close"]),
        "maxUnavailable": st.sampled_from(["1%", "25%", "100%"]),
        "onViolation": st.dictionaries(
            st.sampled_from(["file-modified", "execution-foreign"]), st.sampled_from(["drift", "tamper"])
        ),
        "recovery": st.fixed_dictionaries(
            {},
            optional={
                "drift": st.sampled_from(["auto", "replace", "manual"]),
                "minimumClosed": durations("0s", "30s", "5m"),
                "flaps": st.fixed_dictionaries(
                    {}, optional={"count": st.integers(1, 3), "within": durations("1m", "1h")}
                ),
            },
        ),
        "breakGlass": st.fixed_dictionaries(
            {},
            optional={
                "operators": st.lists(OPERATORS, max_size=3, unique_by=_key),
                "longest": durations("10m", "1h"),
            },
        ),
    },
)


def spec(written: Mapping[str, Any]) -> PolicySpec:
    return PolicySpec.model_validate(written)


def said(written: Mapping[str, Any]) -> Stated:
    return stated(spec(written))


def values(known: Stated) -> dict[str, object]:
    """As they mean it: a list of what is asked for, or allowed, has no sequence."""
    return {place: sorted(each.value) if isinstance(each.value, tuple) else each.value for place, each in known.items()}


def policy(name: str, written: Mapping[str, Any], namespace: str = "default") -> AttestationPolicy:
    return AttestationPolicy(metadata=Metadata(name=name, namespace=namespace), spec=spec(written))


def volatile(path: str, policy: AttestationPolicy) -> bool:
    return class_of(path, policy.spec.files) is FileClass.VOLATILE


def merged(*written: tuple[str, Rank, Mapping[str, Any]]) -> EffectivePolicy:
    return merge(Applying(policy(name, each), rank) for name, rank, each in written).policy


@given(SPECS, SPECS)
def test_which_of_two_policies_is_found_first_does_not_matter(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert values(joined(said(one), said(other))) == values(joined(said(other), said(one)))


@given(SPECS, SPECS, SPECS)
def test_how_three_policies_are_grouped_does_not_matter(
    one: Mapping[str, Any], two: Mapping[str, Any], three: Mapping[str, Any]
) -> None:
    left = joined(joined(said(one), said(two)), said(three))
    assert values(left) == values(joined(said(one), joined(said(two), said(three))))


@given(SPECS)
def test_saying_something_twice_changes_nothing(one: Mapping[str, Any]) -> None:
    assert joined(said(one), said(one)) == said(one)


@given(st.lists(SPECS, min_size=1, max_size=4), SPECS)
def test_one_policy_more_loosens_nothing_that_is_stated(
    before: list[Mapping[str, Any]], more: Mapping[str, Any]
) -> None:
    known = reduce(joined, map(said, before))
    after = joined(known, said(more))
    assert values(joined(after, known)) == values(after)


@given(st.lists(st.fixed_dictionaries({"files": FILES}), min_size=1, max_size=3), st.sampled_from(PATHS))
def test_nothing_is_exempt_that_any_policy_with_exemptions_does_not_exempt(
    written: list[Mapping[str, Any]], path: str
) -> None:
    together = assembled(reduce(joined, map(said, written)))
    outcome = volatile(path, AttestationPolicy(metadata=Metadata(name="all"), spec=together))
    speaking = [each for each in written if "volatile" in each["files"]]
    alone = [volatile(path, policy("one", each)) for each in speaking]
    bounds = [
        volatile(path, policy("bound", {"files": {"volatile": bound["volatile"]}}))
        for each in written
        for bound in each["files"].get("within", [])
        if "volatile" in bound
    ]
    assert outcome == (bool(alone) and all(alone) and all(bounds))


def test_a_floors_bound_alone_exempts_nothing_and_bounds_whoever_exempts_something() -> None:
    floor: tuple[str, Rank, dict[str, Any]] = ("floor", Rank.MESH, {"files": {"within": [{"volatile": ["/var/**"]}]}})
    ruled = merged(floor, ("web", Rank.WORKLOAD, {"files": {"include": ["/srv"]}}))
    assert not volatile("/var/a", ruled)
    bounded = merged(floor, ("web", Rank.WORKLOAD, {"files": {"volatile": ["*.log"]}}))
    assert volatile("/var/a.log", bounded)
    assert not volatile("/var/a", bounded) and not volatile("/srv/a.log", bounded)


@given(SPECS)
def test_taking_a_policy_apart_and_putting_it_together_loses_nothing(written: Mapping[str, Any]) -> None:
    once = assembled(said(written))
    assert assembled(stated(once)) == once
    assert values(joined(stated(once), said(written))) == values(said(written))


def test_nothing_below_loosens_the_floor() -> None:
    floor = {
        "mode": "enforce",
        "freshness": "60s",
        "files": {"volatile": ["/var/**"]},
        "layers": {"proxy": {}},
    }
    wish = {
        "mode": "observe",
        "interval": "10s",
        "freshness": "5m",
        "files": {"include": ["/srv"], "volatile": ["/srv/**", "/var/cache/**"]},
        "layers": {"proxy": {"demand": "off"}},
    }
    ruled = merged(("floor", Rank.MESH, floor), ("web", Rank.WORKLOAD, wish))
    assert (ruled.spec.mode, ruled.spec.freshness, ruled.spec.interval) == ("enforce", 60.0, 10.0)
    assert ruled.spec.layers["proxy"].demand is Demand.REQUIRED  # type: ignore[index] # a Layer is its name
    assert volatile("/var/cache/a", ruled)
    assert not volatile("/srv/a", ruled)


def test_each_value_names_the_document_that_it_comes_from() -> None:
    ruled = merged(
        ("floor", Rank.MESH, {"mode": "enforce", "freshness": "60s"}),
        ("web", Rank.WORKLOAD, {"interval": "5s", "freshness": "60s", "files": {"include": ["/srv"]}}),
    )
    assert [each.name for each in ruled.stated_by("mode")] == ["floor"]
    assert [each.name for each in ruled.stated_by("freshness")] == ["floor", "web"]
    assert [each.name for each in ruled.stated_by("files.include")] == ["web"]


def test_policies_of_equal_rank_that_differ_are_both_named_and_the_stricter_holds() -> None:
    both = [
        Applying(policy("one", {"deadman": "1s"}), Rank.NAMESPACE),
        Applying(policy("two", {"deadman": "3s"}), Rank.NAMESPACE),
    ]
    found = merge(both)
    assert found.policy.spec.deadman == 1.0
    assert [str(each) for each in found.conflicts] == [
        "spec.deadman: AttestationPolicy/one and AttestationPolicy/two differ at equal rank; the stricter value holds"
    ]


def test_what_different_ranks_say_is_no_conflict() -> None:
    both = [
        Applying(policy("one", {"deadman": "1s"}), Rank.NAMESPACE),
        Applying(policy("two", {"deadman": "3s"}), Rank.WORKLOAD),
    ]
    assert merge(both).conflicts == ()


def test_halves_that_do_not_fit_together_are_refused_by_the_names_of_both() -> None:
    with pytest.raises(
        InvalidConfiguration, match=r"twice the interval.*AttestationPolicy/floor.*AttestationPolicy/web"
    ):
        merged(("floor", Rank.MESH, {"freshness": "20s"}), ("web", Rank.WORKLOAD, {"interval": "15s"}))


def test_a_layer_that_nobody_names_is_measured_all_the_same() -> None:
    ruled = merged(("floor", Rank.MESH, {"layers": {"proxy": {}}}))
    assert {layer: each.demand for layer, each in ruled.spec.layers.items()} == {
        "files": "required",
        "processes": "required",
        "proxy": "required",
    }


@given(st.lists(SPECS, min_size=1, max_size=3))
def test_what_was_merged_is_read_by_a_sidecar_as_it_was_meant(written: list[Mapping[str, Any]]) -> None:
    try:
        ruled = merged(*((f"p{number}", Rank.NAMESPACE, each) for number, each in enumerate(written)))
    except InvalidConfiguration:
        return
    read = EffectivePolicy.model_validate_json(ruled.model_dump_json(by_alias=True))
    assert read.model_dump() == ruled.model_dump()
