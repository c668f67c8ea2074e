"""Several versions in one document: each good as a whole, none mixed, and each gone again when it is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import InvalidInput
from policies.author.references import rollout
from policies.model import dialect
from policies.model.inheritance import Inheritance, effective
from policies.model.metadata import Metadata
from policies.model.origin import Mark, Origin
from policies.model.references import ReferenceSpec, ReferenceValues
from policies.model.writing import reference_values

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


def values(version: str = "", name: str = "web", **spec: Any) -> ReferenceValues:
    labels = {"version": version} if version else {}
    return ReferenceValues(metadata=Metadata(name=name, labels=labels), spec=ReferenceSpec.model_validate(spec))


def of(document: ReferenceValues) -> tuple[str, ReferenceValues]:
    return document.metadata.labels.get("version", ""), document


def only(digest: str, mode: str = "0644") -> dict[str, Any]:
    return {"digests": [digest], "mode": mode}


OLD = values("1.4", files={"/a": only(ONE), "/b": only(ONE), "/old": only(ONE)}, executables={"/x": [ONE]})
NEW = values("1.5", files={"/a": only(ONE), "/b": only(TWO), "/new": only(TWO)}, executables={"/x": [ONE], "/y": [TWO]})


def test_what_versions_share_stands_once_and_the_rest_by_version() -> None:
    both = rollout.merged([of(OLD), of(NEW)]).spec
    assert both.files.keys() == {"/a"}
    assert {label: each.files.keys() for label, each in both.versions.items()} == {
        "1.4": {"/b", "/old"},
        "1.5": {"/b", "/new"},
    }
    assert (both.executables, both.versions["1.5"].executables) == ({"/x": (ONE,)}, {"/y": (TWO,)})


def test_a_version_that_is_dropped_leaves_the_other_as_it_was() -> None:
    both = rollout.merged([of(OLD), of(NEW)])
    assert rollout.without(both, ["1.4"]) == NEW
    assert rollout.without(both, ["1.5"]) == OLD


def test_a_third_version_is_added_to_two() -> None:
    third = values("1.6", files={"/a": only(ONE), "/b": only(THREE)})
    three = rollout.merged([of(rollout.merged([of(OLD), of(NEW)])), of(third)])
    assert list(three.spec.versions) == ["1.4", "1.5", "1.6"]
    assert rollout.without(three, ["1.4", "1.5"]) == third
    assert rollout.without(three, ["1.6"]) == rollout.merged([of(OLD), of(NEW)])


def test_the_first_end_of_all_is_the_end_and_every_proxy_may_be_used() -> None:
    early = values("1", expires="2026-12-01T00:00:00Z", proxies={"1.40.0": [ONE]})
    late = values("2", expires="2026-12-31T00:00:00Z", proxies={"1.40.0": [TWO], "1.41.0": [ONE]})
    both = rollout.merged([of(late), of(early)]).spec
    assert both.expires == early.spec.expires
    assert both.proxies == {"1.40.0": (TWO, ONE), "1.41.0": (ONE,)}


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ((OLD, values("1.4")), "the version '1.4' is told twice"),
        ((OLD, values("1.5", name="api")), "not versions of one document"),
        ((OLD, values("1.5", inherits=["base"])), "not versions of one document"),
        (
            (values("1", inherits=["base"], without=["/a"]), values("2", inherits=["base"])),
            "not versions of one document",
        ),
    ],
)
def test_what_are_no_versions_of_one_workload_is_refused(documents: tuple[ReferenceValues, ...], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        rollout.merged([of(each) for each in documents])


@pytest.mark.parametrize(
    ("labels", "words"), [(["2.0"], "no version '2.0'"), (["1.4", "1.5"], "no version would be left")]
)
def test_no_version_is_dropped_that_is_not_there_and_never_the_last(labels: list[str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        rollout.without(rollout.merged([of(OLD), of(NEW)]), labels)


DIGESTS = st.sampled_from([ONE, TWO, THREE])
FILES = st.dictionaries(
    st.sampled_from(["/a", "/b", "/c", "/d"]),
    st.fixed_dictionaries(
        {"digests": st.lists(DIGESTS, min_size=1, max_size=2, unique=True)},
        optional={"mode": st.sampled_from(["0644", "0755"]), "uid": st.integers(0, 2), "optional": st.booleans()},
    ),
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "files": FILES,
        "executables": st.dictionaries(st.sampled_from(["/x", "/y"]), st.lists(DIGESTS, max_size=2, unique=True)),
    },
)


@settings(deadline=None)
@given(st.lists(SPECS, min_size=2, max_size=4))
def test_whatever_versions_are_merged_each_comes_out_again_as_it_was(specs: list[dict[str, Any]]) -> None:
    documents = [values(f"v{number}", **spec) for number, spec in enumerate(specs)]
    merged = rollout.merged([of(each) for each in documents])
    for document in documents:
        own = document.metadata.labels["version"]
        assert rollout.without(merged, [label for label in merged.spec.versions if label != own]) == document


# --- beyond a base ---


@settings(deadline=None)
@given(SPECS, SPECS)
def test_an_application_beyond_its_base_is_with_its_base_what_it_was(
    base_spec: dict[str, Any], spec: dict[str, Any]
) -> None:
    base, whole = values(name="base", **base_spec), values(**spec)
    beyond = rollout.beyond(whole, effective(base), "base")
    at = Origin(Path("x.yaml"), Mark(1, 1))
    again = Inheritance({("default", "base"): (base, at), ("default", "web"): (beyond, at)}, "root").whole(
        ("default", "web")
    )
    assert again.references.spec.files == whole.spec.files
    # What may run by the base may run by whoever inherits it: only files can be taken out.
    assert again.references.spec.executables == {**base.spec.executables, **whole.spec.executables}


def test_what_the_base_states_alike_is_not_stated_again() -> None:
    base = values(name="base", files={"/a": only(ONE), "/b": only(ONE), "/gone": only(ONE)}, executables={"/x": [ONE]})
    spec = rollout.beyond(NEW, effective(base), "base").spec
    assert (spec.inherits, spec.without) == (("base",), ("/gone",))
    assert (set(spec.files), set(spec.executables)) == ({"/b", "/new"}, {"/y"})


# --- as text ---

TEXT = st.text(
    st.characters(categories=("L", "N", "P", "S", "Z", "M", "Cc", "Cf", "Co"), exclude_characters="\0"),
    min_size=1,
    max_size=12,
)
REFERENCE = st.fixed_dictionaries(
    {"digests": st.lists(DIGESTS, min_size=1, max_size=2)},
    optional={
        "mode": st.sampled_from(["0644", "4755"]),
        "uid": st.integers(0, 9),
        "gid": st.integers(0, 9),
        "optional": st.just(True),
    },
)
SECTIONS = {
    "files": st.dictionaries(TEXT.map(lambda name: f"/{name}"), REFERENCE, max_size=3),
    "executables": st.dictionaries(TEXT, st.lists(DIGESTS, max_size=2, unique=True), max_size=2),
}
DOCUMENTS = st.fixed_dictionaries(
    {
        **SECTIONS,
        "proxies": st.dictionaries(TEXT, st.lists(DIGESTS, max_size=2, unique=True), max_size=2),
        "versions": st.dictionaries(
            st.sampled_from(["1.4", "v1", "1"]), st.fixed_dictionaries({}, optional=SECTIONS), max_size=2
        ),
    },
    optional={"expires": st.just("2026-12-31T00:00:00Z"), "inherits": st.just(["proofbeat-system/base"])},
)


@settings(deadline=None)
@given(
    DOCUMENTS, st.dictionaries(st.sampled_from(["version", "team/a"]), TEXT), st.sampled_from(["default", "payments"])
)
def test_what_is_written_reads_as_what_was_meant(spec: dict[str, Any], labels: dict[str, str], namespace: str) -> None:
    document = ReferenceValues(
        metadata=Metadata(name="web", namespace=namespace, labels=labels), spec=ReferenceSpec.model_validate(spec)
    )
    ((value, node),) = dialect.parse(reference_values(document), "x")
    assert dialect.validate(value, node, ReferenceValues, "x") == document


def test_each_path_has_a_line_of_its_own() -> None:
    assert reference_values(NEW).splitlines()[5] == f'    "/a": {{digests: [sha256:{ONE}], mode: "0644"}}'
