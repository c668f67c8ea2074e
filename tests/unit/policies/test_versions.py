"""A roll-out: several versions of one workload are good, each as a whole, and none mixed with another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.facts import FileChange, FileFact
from attestation.manifest import Entry
from policies.appraise.appraise import appraise
from policies.appraise.reasons import Finding
from policies.appraise.violation import violates
from policies.model import dialect
from policies.model.inheritance import Inheritance, effective
from policies.model.metadata import Metadata
from policies.model.origin import Mark, Origin
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceSpec, ReferenceValues
from tests.unit.policies.world import GOOD, LOADER, PYTHON, claimed, entry, governing

MAIN, PAGE, NEW, OLD = "/srv/app/main.py", "/srv/app/page.html", "/srv/app/new.py", "/srv/app/old.py"
ONE, TWO, THREE, SAME = "1" * 64, "2" * 64, "3" * 64, "5" * 64
POLICY = AttestationPolicy(
    metadata=Metadata(name="hardened"),
    spec=PolicySpec.model_validate({"mode": "enforce", "files": {"include": ["/srv/app"], "volatile": ["*.log"]}}),
)


def values(**more: Any) -> ReferenceValues:
    spec = {
        "files": {PAGE: {"digests": [SAME], "mode": "0644"}},
        "executables": {PYTHON: [GOOD[PYTHON]], LOADER: [GOOD[LOADER]]},
        "versions": {
            "1.4": {
                "files": {MAIN: {"digests": [ONE], "mode": "0644"}, OLD: {"digests": [ONE]}},
                "executables": {"/opt/worker": [ONE]},
            },
            "1.5": {
                "files": {MAIN: {"digests": [TWO], "mode": "0755"}, NEW: {"digests": [TWO]}},
                "executables": {"/opt/worker": [TWO]},
            },
        },
    }
    return ReferenceValues(metadata=Metadata(name="web"), spec=ReferenceSpec.model_validate(spec | more))


OF_1_4 = (entry(PAGE, SAME), entry(MAIN, ONE, mode=0o644), entry(OLD, ONE))
OF_1_5 = (entry(PAGE, SAME), entry(MAIN, TWO, mode=0o755), entry(NEW, TWO))


def found(*there: Entry, references: ReferenceValues | None = None) -> tuple[Finding, ...]:
    claims, bodies = claimed(there)
    return appraise(claims, bodies, governing(POLICY, references or values())).reasons


@pytest.mark.parametrize("there", [OF_1_4, OF_1_5])
def test_every_version_is_good_as_a_whole(there: tuple[Entry, ...]) -> None:
    assert found(*there) == ()


@pytest.mark.parametrize(
    "there",
    [
        (OF_1_4[0], OF_1_5[1], OF_1_4[2]),
        (OF_1_4[0], OF_1_4[1], OF_1_5[2]),
        (OF_1_4[0], OF_1_4[1]),
        (*OF_1_4, OF_1_5[2]),
        (OF_1_4[0], entry(MAIN, ONE, mode=0o755), OF_1_4[2]),
    ],
    ids=["a content of the other", "a file of the other", "a file less", "a file more", "the mode of the other"],
)
def test_a_mixture_of_versions_is_found_though_each_file_may_be_so(there: tuple[Entry, ...]) -> None:
    (reason,) = found(*there)
    assert reason.kind == "file-versions-mixed"
    assert reason.rule == "ReferenceValues/web: spec.versions"
    assert "1.4" in reason.text


def test_a_file_that_is_of_no_version_is_told_as_what_it_is() -> None:
    assert [each.kind for each in found(entry(PAGE, SAME), entry(MAIN, THREE), entry(OLD, ONE))] == ["file-modified"]


def test_what_a_mixture_says_would_allow_it_does_allow_it() -> None:
    there = (OF_1_4[0], OF_1_5[1], OF_1_4[2])
    (reason,) = found(*there)
    ((addition, _),) = dialect.parse(reason.allow, "allow")
    assert (
        found(*there, references=values(files={**values().model_dump()["spec"]["files"], **addition["spec"]["files"]}))
        == ()
    )


def test_what_stands_for_all_versions_is_good_in_each() -> None:
    either = values(files={PAGE: {"digests": [SAME]}, MAIN: {"digests": [THREE]}})
    assert found(OF_1_4[0], entry(MAIN, THREE), OF_1_4[2], references=either) == ()
    assert found(OF_1_5[0], entry(MAIN, THREE, mode=0o755), OF_1_5[2], references=either) == ()


def test_a_volatile_file_belongs_to_no_version() -> None:
    logged = values(versions={"1": {"files": {"/srv/app/a.log": {"digests": [ONE]}}}, "2": {}})
    assert found(entry(PAGE, SAME), entry("/srv/app/a.log", TWO), references=logged) == ()


@pytest.mark.parametrize("path", [MAIN, NEW, OLD])
def test_the_sidecar_closes_for_no_file_that_any_version_allows(path: str) -> None:
    references = effective(values())
    for digest in references.spec.files[path].digests:
        assert violates(FileFact(1.0, path, FileChange.MODIFIED, digest, 0o644), POLICY, references) is None
    removed = violates(FileFact(1.0, path, FileChange.REMOVED), POLICY, references)
    assert (removed is None) is (path != MAIN)


def test_executables_of_every_version_may_run() -> None:
    assert effective(values()).spec.executables["/opt/worker"] == (ONE, TWO)


def test_an_optional_file_may_be_absent_and_is_judged_where_it_is_there() -> None:
    references = values(files={PAGE: {"digests": [SAME], "optional": True}}, versions={})
    assert found(references=references) == ()
    assert [each.kind for each in found(entry(PAGE, ONE), references=references)] == ["file-modified"]


LABELS = ("1", "2", "3")
CONTENTS = st.dictionaries(st.sampled_from([MAIN, NEW, OLD]), st.sampled_from([ONE, TWO]))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(LABELS), CONTENTS, min_size=1), CONTENTS)
def test_what_affirms_is_exactly_what_is_a_version(versions: dict[str, dict[str, str]], there: dict[str, str]) -> None:
    stated = {
        label: {"files": {path: {"digests": [digest]} for path, digest in files.items()}}
        for label, files in versions.items()
    }
    judged = found(
        *(entry(path, digest) for path, digest in there.items()), references=values(files={}, versions=stated)
    )
    assert (judged == ()) is (there in versions.values())


def test_a_version_that_does_not_state_a_path_has_it_as_it_is_inherited() -> None:
    base = values(versions={}, files={PAGE: {"digests": [SAME]}, MAIN: {"digests": [ONE]}}, executables={PYTHON: [ONE]})
    web = ReferenceValues(
        metadata=Metadata(name="web"),
        spec=ReferenceSpec.model_validate(
            {
                "inherits": ["base"],
                "versions": {"1": {}, "2": {"files": {MAIN: {"digests": [TWO]}}, "executables": {PYTHON: [TWO]}}},
            }
        ),
    )
    documents = {
        ("default", name): (each, Origin(Path("x.yaml"), Mark(1, 1))) for name, each in (("base", base), ("web", web))
    }
    references = Inheritance(documents, "proofbeat-system").whole(("default", "web")).references
    assert references.spec.files[MAIN].digests == (ONE, TWO)
    assert not references.spec.files[MAIN].optional
    assert references.spec.executables[PYTHON] == (ONE, TWO)
    assert references.rollouts[0].versions["1"][MAIN][0].digests == (ONE,)


def test_a_path_that_the_application_states_is_of_no_version_of_its_base() -> None:
    base = ReferenceValues(metadata=Metadata(name="base"), spec=values().spec)
    web = ReferenceValues(
        metadata=Metadata(name="web"),
        spec=ReferenceSpec.model_validate(
            {"inherits": ["base"], "files": {MAIN: {"digests": [THREE]}}, "without": [OLD]}
        ),
    )
    at = Origin(Path("x.yaml"), Mark(1, 1))
    documents = {("default", "base"): (base, at), ("default", "web"): (web, at)}
    (rollout,) = Inheritance(documents, "proofbeat-system").whole(("default", "web")).references.rollouts
    assert {label: set(stated) for label, stated in rollout.versions.items()} == {"1.4": set(), "1.5": {NEW}}
