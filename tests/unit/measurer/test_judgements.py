"""Patterns, grades, drift and facts: the small decisions without a kernel."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.coverage import Cutting, Grade, Isolation
from attestation.facts import FileChange, ProcessAspect
from attestation.layers import Layer
from attestation.manifest import DIRECTORY, FILE, HEAD
from measurer.coverage import coverage
from measurer.files.collector import fact_of
from measurer.files.patterns import Volatile
from measurer.files.scan import Change
from measurer.processes.binaries import interpreter_of
from measurer.processes.drift import differences
from measurer.processes.proc import Rights

HERE = ("pid:[1]", "user:[2]")
USER = Rights((1000,) * 4, (1000,) * 4, "0" * 16, True, 2, 0, HERE, 0)


@pytest.mark.parametrize(
    ("pattern", "path", "covered", "below"),
    [
        ("/srv/log/**", "/srv/log/a", True, True),
        ("/srv/log/**", "/srv/log", False, True),
        ("/srv/log", "/srv/log", True, False),
        ("/srv/log/*", "/srv/log", False, False),
        ("/srv/**/x", "/srv/log", False, False),
        ("/srv/l*/**", "/srv/log", False, True),
        ("/srv/*/log", "/srv/a/b/log", False, False),
        ("*.log", "/srv/app/x.log", True, False),
        ("*.log", "/srv/app/x.log.py", False, False),
    ],
)
def test_a_pattern_covers_a_path_and_perhaps_all_below(pattern: str, path: str, covered: bool, below: bool) -> None:
    volatile = Volatile([[[pattern]]])
    assert (volatile.covers(path.encode()), volatile.covers_all_below(path.encode())) == (covered, below)


def test_patterns_that_cover_some_depths_below_a_folder_do_not_cover_all_of_it() -> None:
    assert not Volatile([[["/srv/log", "/srv/log/*/*"]]]).covers_all_below(b"/srv/log")


def test_no_pattern_covers_nothing() -> None:
    assert not Volatile([])
    assert not Volatile([]).covers(b"/srv")


def test_the_grade_needs_a_guarded_envoy_and_a_way_to_cut_it() -> None:
    alone = Isolation()
    assert coverage((), Cutting.DESTROY, False, alone).grade is Grade.BOUNDED_NEW_CONNECTIONS_ONLY
    assert coverage((), Cutting.CAPPED, True, alone).grade is Grade.BOUNDED_NEW_CONNECTIONS_ONLY
    assert coverage((), Cutting.KILL, True, alone).grade is Grade.CLOSED_BY_GUARDIAN
    assert Layer.SYSCALLS in coverage((), Cutting.KILL, True, alone).absent
    assert Layer.FILES not in coverage((), Cutting.KILL, True, alone).absent


def test_each_drifted_aspect_is_named_once() -> None:
    after = replace(USER, capabilities="f" * 16, tracer=7, uids=(0,) * 4)
    found = {aspect: (before, later) for aspect, before, later in differences(USER, after)}
    assert set(found) == {ProcessAspect.CAPABILITIES, ProcessAspect.TRACER, ProcessAspect.USER}
    assert found[ProcessAspect.TRACER] == ("0", "7")
    assert list(differences(USER, USER)) == []


def record(mode: int = 0o644, digest: bytes = b"\1" * 32, size: int = 1) -> bytes:
    return HEAD.pack(2, FILE, mode, 0, 0, size, digest)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (None, record(), FileChange.ADDED),
        (record(), None, FileChange.REMOVED),
        (record(), record(digest=b"\2" * 32), FileChange.MODIFIED),
        (record(), record(mode=0o755), FileChange.ATTRIBUTES),
        (record(), record(mode=0o755, digest=b"\2" * 32), FileChange.MODIFIED),
        (record(), record(digest=bytes(32)), FileChange.UNREADABLE),
    ],
)
def test_a_difference_becomes_the_right_fact(before: bytes | None, after: bytes | None, change: FileChange) -> None:
    fact = fact_of(Change(b"/x", before, after), 1.0)
    assert fact is not None
    assert fact.change is change
    assert (fact.digest == "") == (change in (FileChange.REMOVED, FileChange.UNREADABLE))


def test_folders_are_no_facts_but_a_file_that_becomes_one_is_gone() -> None:
    folder = HEAD.pack(2, DIRECTORY, 0o755, 0, 0, 0, bytes(32))
    assert fact_of(Change(b"/x", None, folder), 1.0) is None
    assert fact_of(Change(b"/x", folder, None), 1.0) is None
    swapped = fact_of(Change(b"/x", record(), folder), 1.0), fact_of(Change(b"/x", folder, record()), 1.0)
    assert [fact.change for fact in swapped if fact] == [FileChange.REMOVED, FileChange.ADDED]


def test_the_loader_of_a_program_is_read_from_its_headers(tmp_path: Path) -> None:
    with open("/bin/true", "rb") as file:
        assert Path(interpreter_of(file.fileno())).name.startswith("ld")
    for content in (b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(60), b"\x7fELF\2\1" + b"\xff" * 90):
        path = tmp_path / "x"
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        assert interpreter_of(descriptor) == ""
        os.close(descriptor)
