"""Reference values that inherit others: what holds in the end, whose it is, and what cannot be inherited."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import InvalidConfiguration
from policies.model.inheritance import Inheritance, effective
from policies.model.load import PolicySet, load
from policies.model.metadata import Metadata
from policies.model.origin import Mark, Origin
from policies.model.places import place, rule
from policies.model.references import EffectiveReferences, ReferenceSpec, ReferenceValues

MAIN, LIBRARY, SHELL, PYTHON = "/srv/app/main.py", "/usr/lib/libc.so.6", "/bin/sh", "/usr/bin/python3"
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
ROOT = "proofbeat-system"


def document(name: str, spec: Mapping[str, Any], namespace: str = "default") -> str:
    """As YAML."""
    head = {"apiVersion": "proofbeat.dev/v1alpha1", "kind": "ReferenceValues"}
    return yaml.safe_dump({**head, "metadata": {"name": name, "namespace": namespace}, "spec": dict(spec)})


def only(*digests: str) -> dict[str, Any]:
    return {"digests": list(digests), "mode": "0644"}


REGISTRATION = """\
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: spiffe://example.org/web, references: web}
---
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {name: all}
"""


def loaded(folder: Path, **documents: str) -> PolicySet:
    """Each document in a file of its name, beside a registration that names `web`."""
    for name, text in {**documents, "registration": REGISTRATION}.items():
        (folder / f"{name}.yaml").write_text(text)
    return load([folder])


def held(folder: Path, **documents: str) -> EffectiveReferences:
    return loaded(folder, **documents).governing["web"].references


def fault(folder: Path, **documents: str) -> str:
    with pytest.raises(InvalidConfiguration) as raised:
        loaded(folder, **documents)
    return raised.value.sentence


BASE = document(
    "debian",
    {
        "files": {LIBRARY: only(ONE), SHELL: only(ONE)},
        "executables": {SHELL: [ONE], PYTHON: [ONE]},
        "proxies": {"1.40.0": [ONE]},
    },
    ROOT,
)


def test_an_application_has_what_it_states_and_what_its_base_states(tmp_path: Path) -> None:
    web = document("web", {"inherits": [f"{ROOT}/debian"], "files": {MAIN: only(TWO)}})
    found = held(tmp_path, base=BASE, web=web)
    assert found.metadata.qualified == "web"
    assert {path: each.digests for path, each in found.spec.files.items()} == {
        LIBRARY: (ONE,),
        SHELL: (ONE,),
        MAIN: (TWO,),
    }
    assert found.spec.executables == {SHELL: (ONE,), PYTHON: (ONE,)}
    assert found.spec.proxies == {"1.40.0": (ONE,)}
    assert found.spec.inherits == ()


def test_what_is_stated_nearer_replaces_what_is_inherited_as_a_whole(tmp_path: Path) -> None:
    web = document(
        "web",
        {"inherits": [f"{ROOT}/debian"], "files": {SHELL: {"digests": [TWO]}}, "executables": {PYTHON: [THREE]}},
    )
    found = held(tmp_path, base=BASE, web=web)
    assert found.spec.files[SHELL].digests == (TWO,)
    assert found.spec.files[SHELL].mode is None
    assert found.spec.executables == {SHELL: (ONE,), PYTHON: (THREE,)}


def test_what_is_taken_out_is_not_there(tmp_path: Path) -> None:
    web = document("web", {"inherits": [f"{ROOT}/debian"], "without": [SHELL]})
    assert held(tmp_path, base=BASE, web=web).spec.files.keys() == {LIBRARY}


def test_each_path_knows_the_document_and_the_line_that_state_it(tmp_path: Path) -> None:
    web = document("web", {"inherits": [f"{ROOT}/debian"], "files": {MAIN: only(TWO)}})
    governing = loaded(tmp_path, base=BASE, web=web).governing["web"]

    def line(stated: str) -> str:
        file, _, number = place(stated, governing.origins).partition(":")
        return f"{file}: {(tmp_path / file).read_text().splitlines()[int(number) - 1].strip()}"

    assert line(rule(governing.references, "files", MAIN)) == f"web.yaml: {MAIN}:"
    assert line(rule(governing.references, "files", LIBRARY)) == f"base.yaml: {LIBRARY}:"
    assert line(rule(governing.references, "executables", PYTHON)) == f"base.yaml: {PYTHON}:"
    assert rule(governing.references, "files", LIBRARY) == f"ReferenceValues/{ROOT}/debian: spec.files[{LIBRARY}]"
    # What is stated anew, is so by the application: its base is not its own to change.
    assert governing.references.stated_by("files") == (Metadata(name="web"),)


def test_the_first_to_expire_ends_all_and_is_named(tmp_path: Path) -> None:
    base = document("base", {"expires": "2026-12-01T00:00:00Z"})
    web = document("web", {"inherits": ["base"], "expires": "2026-12-31T00:00:00Z"})
    found = held(tmp_path, base=base, web=web)
    assert found.spec.expires == 1_796_083_200
    assert rule(found, "expires") == "ReferenceValues/base: spec.expires"


def test_the_signed_document_reads_as_what_was_put_together(tmp_path: Path) -> None:
    web = document(
        "web",
        {"inherits": [f"{ROOT}/debian"], "versions": {"1": {"files": {MAIN: only(ONE)}}, "2": {}}, "without": [SHELL]},
    )
    found = held(tmp_path, base=BASE, web=web)
    assert EffectiveReferences.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_a_document_that_inherits_nothing_is_sent_as_it_always_was() -> None:
    values = ReferenceValues(
        metadata=Metadata(name="web"), spec=ReferenceSpec.model_validate({"files": {MAIN: only(ONE)}})
    )
    sent = effective(values).model_dump(mode="json", by_alias=True)
    assert sent == values.model_dump(mode="json", by_alias=True)
    assert sent["spec"].keys() == {"files", "executables"}


@pytest.mark.parametrize(
    ("inherits", "words"),
    [
        (["web"], "it inherits itself: web -> web"),
        (["middle"], "it inherits itself: middle -> web -> middle"),
        (["absent"], "inherits the ReferenceValues 'absent', which does not exist"),
        (["other/base"], "inherits from another namespace, 'other'"),
        (["a/b/c"], "web.yaml"),
        (["Upper"], "web.yaml"),
    ],
)
def test_what_cannot_be_inherited_is_told_with_its_place(tmp_path: Path, inherits: list[str], words: str) -> None:
    middle = document("middle", {"inherits": ["web"]} if "middle" in inherits else {})
    other = document("base", {}, "other")
    said = fault(tmp_path, web=document("web", {"inherits": inherits}), middle=middle, other=other)
    assert words in said
    assert ".yaml:" in said


def test_a_circle_is_a_fault_though_no_registration_names_it(tmp_path: Path) -> None:
    one, other = document("one", {"inherits": ["other"]}), document("other", {"inherits": ["one"]})
    assert "one -> other -> one" in fault(tmp_path, one=one, other=other, web=document("web", {}))


def test_two_bases_that_differ_are_refused_and_both_are_named(tmp_path: Path) -> None:
    bases = {name: document(name, {"files": {LIBRARY: only(digest)}}) for name, digest in (("a", ONE), ("b", TWO))}
    said = fault(tmp_path, **bases, web=document("web", {"inherits": ["a", "b"]}))
    assert f"spec.files[{LIBRARY}] differs between a (" in said
    assert "a.yaml:1:1" in said
    assert "b.yaml:1:1" in said
    stated = {"inherits": ["a", "b"], "files": {LIBRARY: only(THREE)}}
    assert "differs" in fault(tmp_path, **bases, web=document("web", stated)), "what it would replace is in doubt"


@pytest.mark.parametrize("sequence", [("old", "new"), ("new", "old")])
def test_of_two_bases_the_one_that_inherits_the_other_is_nearer_in_any_sequence(
    tmp_path: Path, sequence: tuple[str, ...]
) -> None:
    old = document("old", {"files": {LIBRARY: only(ONE), SHELL: only(ONE)}})
    new = document("new", {"inherits": ["old"], "files": {LIBRARY: only(TWO)}, "without": [SHELL]})
    found = held(tmp_path, old=old, new=new, web=document("web", {"inherits": list(sequence)}))
    assert {path: each.digests for path, each in found.spec.files.items()} == {LIBRARY: (TWO,)}


def test_generations_without_end_are_refused(tmp_path: Path) -> None:
    line = {f"d{number}": document(f"d{number}", {"inherits": [f"d{number + 1}"]}) for number in range(2000)}
    assert "more than 16 generations" in fault(tmp_path, **line, d2000=document("d2000", {}), web=document("web", {}))


@pytest.mark.parametrize("first", ["0", "16"])
def test_the_most_generations_are_the_same_from_either_end(first: str) -> None:
    def documents(generations: int) -> dict[tuple[str, str], tuple[ReferenceValues, Origin]]:
        names = [f"d{number}" for number in range(generations)]
        ancestors = dict(zip(names, [*names[1:], None], strict=True))
        written = {
            ("default", name): (
                ReferenceValues(
                    metadata=Metadata(name=name), spec=ReferenceSpec(inherits=(parent,) if parent is not None else ())
                ),
                Origin(Path("x.yaml"), Mark(1, 1)),
            )
            for name, parent in ancestors.items()
        }
        return dict(sorted(written.items(), key=lambda each: each[0][1] != f"d{first}"))

    longest = Inheritance(documents(16), ROOT)
    assert [longest.whole(key).generations for key in documents(16)]
    over = Inheritance(documents(17), ROOT)
    with pytest.raises(InvalidConfiguration, match="16 generations"):
        [over.whole(key) for key in documents(17)]


def test_versions_that_differ_in_more_than_can_be_looked_at_are_refused(tmp_path: Path) -> None:
    versions = {f"v{number}": {"files": {f"/{number}": only(ONE)}} for number in range(450)}
    said = fault(tmp_path, web=document("web", {"versions": versions}))
    assert "450 versions differ in 450 paths" in said
    assert "web.yaml:" in said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"without": [SHELL]}, "nothing is inherited here"),
        (
            {"inherits": ["a"], "without": [SHELL], "files": {SHELL: only(ONE)}},
            f"{SHELL}, which is stated here as well",
        ),
        ({"expires": "2026-12-31"}, "no point in time"),
        ({"expires": "2026-13-31T00:00:00Z"}, "on no calendar"),
        ({"expires": 5}, "a point in time is text"),
        ({"versions": {"1 2": {}}}, "pattern"),
        ({"versions": {"1": {"file": {}}}}, "'files'"),
    ],
)
def test_each_mistake_in_the_new_fields_has_a_message_of_its_own(
    tmp_path: Path, spec: dict[str, Any], words: str
) -> None:
    said = fault(tmp_path, web=document("web", spec))
    assert words in said
    assert "web.yaml:" in said


# --- whatever inherits whatever ---

PATHS = ("/a", "/b", "/c")
STATED = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([ONE, TWO, None]), max_size=3)


@st.composite
def families(draw: st.DrawFn) -> list[tuple[tuple[int, ...], dict[str, str | None]]]:
    """Documents by number: those that each inherits (of lower numbers), and what it states; None where it takes out."""
    count = draw(st.integers(1, 6))
    return [
        (tuple(draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3))) if number else (), draw(STATED))
        for number in range(count)
    ]


class Doubt(Exception):
    pass


def told(family: list[tuple[tuple[int, ...], dict[str, str | None]]], number: int) -> dict[str, str]:
    """The meaning, said once more: of all who state a path, drop whoever another one of them inherits."""
    line = ancestors(family, number)
    for each in sorted(line - {number}):
        told(family, each)
    found = {}
    for path in PATHS:
        for exclude in (frozenset({number}), frozenset[int]()):
            stating = {each for each in line - exclude if path in family[each][1]}
            nearest = {
                each for each in stating if not any(each in ancestors(family, other) for other in stating - {each})
            }
            values = {family[each][1][path] for each in nearest}
            if len(values) > 1:
                raise Doubt
            value = next(iter(values), None)
        if value is not None:
            found[path] = value
    return found


def ancestors(family: list[tuple[tuple[int, ...], dict[str, str | None]]], number: int) -> set[int]:
    return {number}.union(*(ancestors(family, each) for each in family[number][0]))


@settings(deadline=None)
@given(families(), st.randoms(use_true_random=False))
def test_the_sequence_of_documents_and_of_parents_means_nothing(
    family: list[tuple[tuple[int, ...], dict[str, str | None]]], chance: Any
) -> None:
    documents = {}
    for number, (parents, stated) in enumerate(family):
        kept = {path: digest for path, digest in stated.items() if digest is not None or parents}
        family[number] = (parents, kept)
        names = [f"d{each}" for each in parents]
        chance.shuffle(names)
        spec = ReferenceSpec.model_validate(
            {
                "inherits": names,
                "files": {path: {"digests": [digest]} for path, digest in kept.items() if digest is not None},
                "without": [path for path, digest in kept.items() if digest is None],
            }
        )
        values = ReferenceValues(metadata=Metadata(name=f"d{number}"), spec=spec)
        documents["default", f"d{number}"] = (values, Origin(Path(f"{number}.yaml"), Mark(1, 1)))
    shuffled = list(documents.items())
    chance.shuffle(shuffled)
    inheritance = Inheritance(dict(shuffled), ROOT)
    for key, _ in shuffled:
        try:
            expected = told(family, int(key[1][1:]))
        except Doubt:
            with pytest.raises(InvalidConfiguration, match="differs between"):
                inheritance.whole(key)
        else:
            found = inheritance.whole(key).references
            assert {path: each.digests[0] for path, each in found.spec.files.items()} == expected
