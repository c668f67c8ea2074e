"""What one time of watching comes to, out of facts and measurements."""

from __future__ import annotations

from typing import Any

import pytest

from attestation.facts import (
    Actor,
    CallFact,
    ExecutionFact,
    FileChange,
    FileFact,
    InstanceFact,
    MemoryFact,
    PreloadFact,
    ProcessAspect,
    ProcessFact,
    ScriptFact,
    Sighting,
)
from attestation.memory import Code, CodeKind
from attestation.processes import ProcessKind
from policies.author.learning.learned import Origin
from policies.author.learning.outcome import references, rules
from policies.author.learning.watched import STARTUP, Measured, Subject, Watched
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import FileReference

ONE, OTHER = "1" * 64, "2" * 64
APP, SHELL = "/bin/app", "/bin/sh"
BEGAN, RUN = 1000.0, "2026-01-01T00:00:00Z-a"
LATER = STARTUP + 10.0


def watching(**more: Any) -> Watched:
    return Watched(Subject(RUN, "a test", "x86_64", ("/srv",)), BEGAN, **more)


def called(name: str, at: float, maker: str = APP) -> CallFact:
    return CallFact(BEGAN + at, name, Actor(7, maker))


def executed(path: str, at: float, by: str = SHELL, digest: str = ONE) -> ExecutionFact:
    return ExecutionFact(BEGAN + at, path, digest, Actor(7, by), Sighting.EVENT)


def kind(path: str = APP) -> ProcessKind:
    return ProcessKind(path, ONE, "/lib/ld.so", OTHER, 0, 0, "0", False, 0, (), False)


def changed(path: str, change: FileChange = FileChange.MODIFIED, digest: str = OTHER) -> FileFact:
    return FileFact(BEGAN + LATER, path, change, digest, 0o644, actor=Actor(7, APP))


def files(**contents: str) -> Measured:
    def stated(content: str) -> FileReference:
        return FileReference.model_validate({"digests": [content], "mode": "0644"})

    return Measured(files={f"/srv/{name}": stated(content) for name, content in contents.items()})


def origin(at: float, maker: str = APP) -> Origin:
    return Origin(run=RUN, at=at, maker=maker)


def learned(watched: Watched, seconds: float = 60.0) -> Any:
    return watched.learned(BEGAN + seconds)


# --- calls ---


def test_a_call_is_told_with_the_first_who_made_it_and_when() -> None:
    watched = watching()
    for fact in (called("read", 2.0), called("read", 1.0, SHELL), called("write", 3.0)):
        watched.saw(fact)
    assert learned(watched).calls == {"serving": {"read": origin(1.0, SHELL), "write": origin(3.0)}}


def test_the_first_seconds_of_whoever_is_executed_are_its_startup_whichever_is_told_first() -> None:
    watched = watching()
    watched.saw(called("openat", 19.9))  # a call may overtake the execution that it comes after
    watched.saw(executed(APP, 20.0))
    watched.saw(called("listen", 20.0 + STARTUP / 2))
    watched.saw(called("accept4", 20.0 + STARTUP + 0.1))
    found = learned(watched).calls
    assert {name: set(calls) for name, calls in found.items()} == {
        "startup": {"openat", "listen"},
        "serving": {"accept4"},
    }


def test_of_a_program_that_was_gone_too_soon_the_kernels_name_for_it_is_enough() -> None:
    watched = watching()
    watched.saw(executed("/usr/bin/a-probe-with-a-long-name", 20.0))
    watched.saw(called("openat", 20.1, "a-probe-with-a-"))
    assert set(learned(watched).calls) == {"startup"}


def test_a_call_that_is_told_in_every_part_of_its_life_is_in_every_set() -> None:
    watched = watching(fresh=True)
    for at in (0.1, LATER, 50.0):
        if at == 50.0:
            watched.ends(BEGAN + at)
        watched.saw(called("read", at))
    assert {name: calls["read"].at for name, calls in learned(watched).calls.items()} == {
        "startup": 0.1,
        "serving": LATER,
        "ending": 50.0,
    }


def test_a_call_whose_maker_the_kernel_could_not_tell_is_there_all_the_same() -> None:
    watched = watching()
    watched.measured(Measured(calls=("read", "write")), BEGAN + LATER)
    watched.saw(called("read", LATER + 1))  # it could, a moment later
    assert learned(watched).calls == {"serving": {"read": origin(LATER + 1), "write": origin(LATER, "")}}


def test_what_it_does_when_it_ends_is_not_waited_for() -> None:
    watched = watching()
    watched.saw(called("read", 1.0))
    watched.ends(BEGAN + 40.0)
    watched.saw(called("unlink", 41.0))
    watched.saw(InstanceFact(BEGAN + 42.0))
    (run,) = learned(watched).runs
    assert (run.seconds, run.quiet, run.converged, run.ended) == (40.0, 39.0, True, True)


# --- programs and code ---


def test_what_ran_before_and_what_is_executed_may_run_with_its_loader() -> None:
    watched = watching()
    watched.measured(Measured(kinds=(kind(),)), BEGAN + 0.5)
    watched.saw(executed("/bin/probe", LATER))
    found = learned(watched)
    assert found.executables == {
        APP: {ONE: origin(0.5, "")},
        "/lib/ld.so": {OTHER: origin(0.5, "")},
        "/bin/probe": {ONE: origin(LATER, SHELL)},
    }
    assert found.unseen == (APP,)


def test_whose_start_was_seen_needs_none_any_more() -> None:
    watched = watching()
    watched.measured(Measured(kinds=(kind(),)), BEGAN)
    watched.saw(executed(APP, LATER))
    assert learned(watched).unseen == ()


def test_scripts_and_libraries_before_a_programs_own_are_told_apart_from_programs() -> None:
    watched = watching()
    watched.saw(ScriptFact(BEGAN + 1, "/opt/job.py", ONE, Actor(7, APP), Sighting.EVENT))
    watched.saw(PreloadFact(BEGAN + 2, "LD_PRELOAD", "libx.so", Actor(7, APP), "/opt/libx.so", OTHER))
    watched.saw(PreloadFact(BEGAN + 3, "LD_PRELOAD", "gone.so", Actor(7, APP)))
    found = learned(watched)
    assert {path: set(known) for path, known in found.begun.items()} == {"/opt/job.py": {ONE}, "/opt/libx.so": {OTHER}}
    assert set(found.preload) == {"libx.so", "gone.so"}


def test_of_code_of_no_file_the_most_is_kept_and_every_kind() -> None:
    watched = watching()
    for each in (
        Code(CodeKind.ANONYMOUS, APP, amount=8192, writable=True),
        Code(CodeKind.MEMFD, APP, amount=4096),
        Code(CodeKind.FILE, path="/lib/libc.so", digest=ONE),
    ):
        watched.saw(MemoryFact(BEGAN + 1, Actor(7, APP), each))
    found = learned(watched)
    amount = found.code[APP]
    assert (amount.most, amount.writable, amount.memfd) == (8192, True, True)
    assert set(found.mapped) == {"/lib/libc.so"}


@pytest.mark.parametrize("path", ["/srv/\udcff", "/srv/a\0b"])
def test_what_no_document_can_name_is_left_out(path: str) -> None:
    watched = watching()
    watched.saw(executed(path, 1.0))
    watched.measured(Measured(files={path: FileReference(digests=(ONE,))}), BEGAN)
    found = learned(watched)
    assert (found.executables, found.files) == ({}, {})


# --- files ---


def test_what_was_the_same_all_the_time_is_referenced_and_what_was_not_is_volatile() -> None:
    watched = watching()
    watched.measured(files(code=ONE, log=ONE, gone=ONE), BEGAN + STARTUP)
    watched.measured(files(code=ONE, log=OTHER, new=ONE), BEGAN + 60)
    found = learned(watched)
    assert set(found.files) == {"/srv/code"}
    assert set(found.volatile) == {"/srv/gone", "/srv/log", "/srv/new"}


@pytest.mark.parametrize(
    "fact",
    [
        changed("/srv/code"),
        changed("/srv/code", FileChange.REMOVED, ""),
        changed("/srv/code", FileChange.ATTRIBUTES, ONE).__class__(
            BEGAN + LATER, "/srv/code", FileChange.ATTRIBUTES, ONE, 0o755
        ),
        changed("/srv/new", FileChange.ADDED),
    ],
    ids=["content", "removed", "mode", "added"],
)
def test_a_file_that_was_another_for_a_moment_is_volatile(fact: FileFact) -> None:
    watched = watching()
    watched.measured(files(code=ONE), BEGAN + STARTUP)
    watched.saw(fact)
    watched.measured(files(code=ONE), BEGAN + 60)
    assert set(learned(watched).volatile) == {fact.path}


def test_a_file_that_was_written_while_it_started_or_put_there_again_as_it_was_is_kept() -> None:
    watched = watching()
    watched.saw(changed("/srv/code"))
    watched.measured(files(code=ONE), BEGAN + STARTUP)
    watched.saw(changed("/srv/code", digest=ONE))
    assert (set(learned(watched).files), learned(watched).volatile) == ({"/srv/code"}, {})


# --- news, and what no reference can allow ---


def test_only_what_was_not_known_is_news() -> None:
    watched = watching()
    watched.saw(called("read", 1.0))
    watched.saw(executed(APP, 2.0))
    watched.saw(called("read", 30.0, SHELL))
    watched.saw(executed(APP, 31.0))
    assert watched.convergence.last == 2.0


def judged(watched: Watched) -> tuple[str, ...]:
    found = learned(watched)
    policy = AttestationPolicy(metadata=Metadata(name="web"), spec=PolicySpec.model_validate(rules(found)))
    return watched.findings(policy, references("web", found))


def test_what_was_learned_is_no_finding_under_its_own_policy() -> None:
    watched = watching()
    watched.measured(files(code=ONE), BEGAN + STARTUP)
    for fact in (
        called("read", 1.0),
        executed(APP, 2.0),
        ScriptFact(BEGAN + 1, "/opt/job.py", ONE, Actor(7, APP), Sighting.EVENT),
        PreloadFact(BEGAN + 3, "LD_PRELOAD", "gone.so", Actor(7, APP)),
        MemoryFact(BEGAN + 1, Actor(7, APP), Code(CodeKind.ANONYMOUS, APP, amount=8192, writable=True)),
        MemoryFact(BEGAN + 1, Actor(7, APP), Code(CodeKind.FILE, path="/lib/libc.so", digest=ONE)),
    ):
        watched.saw(fact)
    assert judged(watched) == ()


def test_what_no_reference_can_allow_is_told_once() -> None:
    watched = watching()
    for pid in (7, 8):
        watched.saw(ProcessFact(BEGAN + pid, Actor(pid, APP), ProcessAspect.TRACER, "0", "99 /usr/bin/gdb"))
        watched.saw(ExecutionFact(BEGAN + pid, "/memfd:x", ONE, Actor(pid, APP), Sighting.EVENT, deleted=True))
    found = judged(watched)
    assert [each.partition(":")[0] for each in found] == ["execution-deleted", "process-tracer"]
