"""How a process was begun: what policy and reference values say of scripts, libraries, places, rights and labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.facts import Actor, ExecutionFact, PreloadFact, ProcessAspect, ProcessFact, ScriptFact, Sighting
from attestation.signals import Signal
from policies.appraise.labels import confines_less
from policies.appraise.violation import violates
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceValues
from policies.model.strictness import Common

GOOD, BAD = "a" * 64, "b" * 64
MAIN, JOB, LIBRARY = "/srv/app/main.py", "/usr/share/job.pl", "/usr/lib/libjemalloc.so.2"
WHO = Actor(9, "/usr/bin/python3.11")
REFERENCES = ReferenceValues.model_validate(
    {
        "metadata": Metadata(name="web"),
        "spec": {"files": {MAIN: {"digests": [GOOD]}}, "executables": {JOB: [GOOD], LIBRARY: [GOOD]}},
    }
)


def policy(files: dict[str, Any] | None = None, **processes: Any) -> AttestationPolicy:
    spec = {"files": {"include": ["/srv/app"], **(files or {})}, "processes": processes}
    return AttestationPolicy(metadata=Metadata(name="web"), spec=PolicySpec.model_validate(spec))


def found(fact: Any, ruled: AttestationPolicy) -> tuple[str, str] | None:
    violation = violates(fact, ruled, REFERENCES)
    return (violation.kind, violation.allow) if violation is not None else None


def script(path: str, digest: str = GOOD, deleted: bool = False) -> ScriptFact:
    return ScriptFact(1.0, path, digest, WHO, Sighting.EVENT, deleted)


@pytest.mark.parametrize("path", [MAIN, JOB])
def test_a_script_may_be_referenced_as_a_file_or_as_an_executable(path: str) -> None:
    assert found(script(path), policy()) is None
    assert found(script(path, BAD), policy())[0] is Signal.SCRIPT_MODIFIED  # type: ignore[index]
    assert found(script(path, ""), policy())[0] is Signal.SCRIPT_MODIFIED  # type: ignore[index]


def test_any_other_is_foreign_and_what_would_allow_it_does() -> None:
    signal, allow = found(script("/tmp/x.py"), policy()) or (None, "")
    assert signal is Signal.SCRIPT_FOREIGN
    assert "executables:" in allow and "/tmp/x.py" in allow and GOOD in allow
    assert found(script("/tmp/x.py"), policy(requireReferencedScripts=False)) is None


def test_a_script_without_a_name_is_foreign_even_where_it_was_referenced_by_one() -> None:
    assert found(script(MAIN, deleted=True), policy())[0] is Signal.SCRIPT_FOREIGN  # type: ignore[index]
    assert found(script(MAIN, deleted=True), policy(forbidDeleted=False)) is None


def test_a_referenced_script_may_not_lie_where_nobody_sees_it_change() -> None:
    assert found(script(MAIN), policy({"caches": ["*.py"]}))[0] is Signal.SCRIPT_FROM_DATA  # type: ignore[index]


def library(source: str, entry: str, path: str = "", digest: str = "") -> PreloadFact:
    return PreloadFact(1.0, source, entry, WHO, path, digest)


@pytest.mark.parametrize(
    ("fact", "allowed"),
    [
        (library("LD_PRELOAD", "/usr/lib/libjemalloc.so", LIBRARY, GOOD), True),
        (library("LD_PRELOAD", "/usr/lib/libjemalloc.so", LIBRARY, BAD), False),
        (library("LD_PRELOAD", "libjemalloc.so"), False),
        (library("/etc/ld.so.preload", "", "", ""), False),
        (library("LD_LIBRARY_PATH", "/srv/app/lib", "/srv/app/lib"), True),
        (library("LD_LIBRARY_PATH", "/srv/app/cache", "/srv/app/cache"), False),
        (library("LD_LIBRARY_PATH", "."), False),
        (library("LD_PRELOAD", "/srv/app/lib", "/srv/app/lib"), False),
    ],
)
def test_before_a_programs_own_may_come_what_is_referenced_and_folders_of_code(
    fact: PreloadFact, allowed: bool
) -> None:
    ruled = policy({"caches": ["/srv/app/cache/**"]})
    violation = violates(fact, ruled, REFERENCES)
    assert (violation is None) == allowed
    if violation is not None and fact.entry:
        listed = policy({"caches": ["/srv/app/cache/**"]}, preload=[fact.entry])
        assert violates(fact, listed, REFERENCES) is None, "and what policy allows"
        assert fact.entry in violation.allow


def test_where_an_executable_lies_and_what_it_gives_matter_where_policy_says_so() -> None:
    fact = ExecutionFact(1.0, JOB, GOOD, WHO, Sighting.EVENT, temporary="/tmp", gains="user 0")
    assert found(fact, policy()) is None
    assert found(fact, policy(forbidTemporary=True)) == (
        Signal.EXECUTION_FROM_TEMPORARY,
        'kind: AttestationPolicy\nmetadata: {name: "web"}\nspec:\n  processes: {forbidTemporary: false}\n',
    )
    assert found(fact, policy(forbidGaining=True))[0] is Signal.EXECUTION_GAINING  # type: ignore[index]


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ("web (enforce)", "unconfined", True),
        ("web (enforce)", "web (complain)", True),
        ("web (complain)", "web (enforce)", False),
        ("unconfined", "web (enforce)", False),
        ("web (enforce)", "web//worker (enforce)", False),
        ("web (enforce)", "my-unconfined-web (enforce)", False),
        ("web (enforce)", "unreadable", True),
        ("u:r:container_t:s0 (enforce)", "u:r:unconfined_t:s0 (enforce)", True),
        ("u:r:container_t:s0 (enforce)", "u:r:container_t:s0 (complain)", True),
        ("u:r:init_t:s0 (enforce)", "u:r:httpd_t:s0 (enforce)", False),
        ("", "web (enforce)", False),
    ],
)
def test_a_label_that_confines_less_is_tamper_and_another_one_that_confines_is_not(
    before: str, after: str, worse: bool
) -> None:
    assert confines_less(before, after) is worse
    fact = ProcessFact(1.0, WHO, ProcessAspect.LABEL, before, after)
    assert (violates(fact, policy(), REFERENCES) is not None) is worse


ALLOWED = st.none() | st.sets(st.sampled_from("abcd")).map(lambda each: tuple(sorted(each)))


@given(ALLOWED, ALLOWED, ALLOWED)
def test_what_several_policies_allow_is_what_all_allow_in_whatever_sequence(
    one: tuple[str, ...] | None, other: tuple[str, ...] | None, third: tuple[str, ...] | None
) -> None:
    join = Common().join
    assert join(one, other) == join(other, one)
    assert join(join(one, other), third) == join(one, join(other, third))
    assert join(one, one) == one
    assert join(one, ()) == ()
