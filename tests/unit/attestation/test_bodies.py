"""Layers as bytes, values as plain values, and the words to the measurer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import channel, manifest, processes
from attestation.channel import Beat, Covered, Fault, Measure, Observed, Pinned, Scope, Sever, Severed, Swept
from attestation.claims import Claims
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.facts import (
    Actor,
    EgressFact,
    ExecutionFact,
    FileChange,
    FileFact,
    MountFact,
    Opened,
    Passage,
    PreloadFact,
    RefusalFact,
    ScriptFact,
    Sighting,
    StdioFact,
)
from attestation.layers import Layer, Method
from attestation.manifest import DIRECTORY, FILE, LINK, NO_DIGEST, OTHER, Entry
from attestation.observation import Observation
from attestation.plain import build, plain
from attestation.processes import ProcessKind
from tests.unit.attestation.world import CLAIMS, INSTANCE

PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
ENTRIES = st.builds(
    Entry,
    path=PATHS,
    kind=st.sampled_from((FILE, LINK, DIRECTORY, OTHER)),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**64 - 1),
    digest=st.binary(min_size=32, max_size=32).map(bytes.hex),
)
ONE = Entry("/srv/app/main.py", FILE, 0o644, 1, 2, 3, "ab" * 32)
TWO = ONE._replace(path="/srv/app/page.html")
KIND = ProcessKind("/usr/bin/python3", "ab" * 32, "", "", 1, 1, "0", True, 2, ("mnt:1", "pid:2"))


@given(st.lists(ENTRIES, unique_by=lambda entry: entry.path, max_size=12), st.randoms())
def test_a_manifest_reads_back_and_is_the_same_in_whatever_order(entries: list[Entry], chance: Random) -> None:
    packed = manifest.pack(entries)
    assert sorted(manifest.unpack(packed), key=lambda entry: entry.path) == sorted(
        entries, key=lambda entry: entry.path
    )
    shuffled = list(entries)
    chance.shuffle(shuffled)
    assert manifest.pack(shuffled) == packed


@given(st.lists(ENTRIES, unique_by=lambda entry: entry.path, max_size=12))
def test_a_tally_counts_what_the_entries_are(entries: list[Entry]) -> None:
    assert manifest.tally(manifest.pack(entries)) == Counter((each.kind, each.mode) for each in entries)


def test_a_path_that_is_no_text_survives() -> None:
    odd = ONE._replace(path=b"/srv/\xff\xfe".decode("utf-8", "surrogateescape"))
    assert list(manifest.unpack(manifest.pack([odd]))) == [odd]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"pbf2",
        manifest.pack([ONE])[:-1],
        manifest.pack([ONE]) + b"\0",
        b"pbf1" + manifest.pack([TWO])[4:] + manifest.pack([ONE])[4:],
        b"pbf1" + manifest.pack([ONE])[4:] * 2,
        manifest.pack([ONE._replace(kind=b"x")]),
    ],
)
def test_a_manifest_that_nobody_packed_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        list(manifest.unpack(body))


def test_every_attribute_of_an_entry_changes_the_digest() -> None:
    variants = [
        ONE,
        ONE._replace(mode=0o4644),
        ONE._replace(uid=9),
        ONE._replace(gid=9),
        ONE._replace(size=9),
        ONE._replace(digest=NO_DIGEST),
        ONE._replace(kind=LINK),
        TWO,
    ]
    assert len({manifest.digest(manifest.pack([each])) for each in variants}) == len(variants)


def test_processes_of_the_same_kind_are_one_however_many_run() -> None:
    other = replace(KIND, uid=0)
    assert processes.pack([KIND, other, KIND]) == processes.pack([other, KIND])
    assert set(processes.unpack(processes.pack([KIND, other]))) == {KIND, other}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        processes.pack([KIND]).replace(b",", b", ", 1),
        processes.pack([KIND]).replace(b'"uid"', b'"uidx"'),
        b"[" + b",".join([processes.pack([KIND])[1:-1]] * 2) + b"]",
        processes.pack([replace(KIND, uid=-1)]),
        processes.pack([replace(KIND, gid=2**32)]),
        processes.pack([replace(KIND, seccomp=3)]),
        processes.pack([replace(KIND, capabilities="all")]),
        processes.pack([replace(KIND, digest="ab")]),
    ],
)
def test_a_process_list_that_nobody_packed_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        processes.unpack(body)


def test_layers_are_hashed_under_different_domains() -> None:
    assert manifest.digest(b"x") != processes.digest(b"x")


def test_claims_survive_being_plain() -> None:
    assert build(Claims, plain(CLAIMS)) == CLAIMS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pid": "1"}, "int was expected"),
        ({"pid": True}, "int was expected"),
        ({"pidd": 1}, "unknown field pidd"),
        ({"include": "x"}, "a list was expected"),
        ({"include": [1]}, "str was expected"),
        ({"deadman": "5"}, "float was expected"),
    ],
)
def test_a_field_of_another_shape_is_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        build(Scope, {"pid": 1, "include": []} | change)


def test_a_missing_field_is_named_and_a_defaulted_one_is_not_missed() -> None:
    with pytest.raises(InvalidInput, match="the field include is missing"):
        build(Scope, {"pid": 1})
    assert build(Scope, {"pid": 1, "include": []}).deadman == 5.0
    assert build(Scope, {"pid": 1, "include": [], "deadman": 3}).deadman == 3.0


def test_a_word_that_is_not_known_is_refused() -> None:
    fact = plain(FileFact(1.0, "/x", FileChange.ADDED))
    with pytest.raises(InvalidInput):
        build(FileFact, fact | {"change": "melted"})


MESSAGES: Iterable[channel.Message] = (
    Scope(42, ("/srv/app",), ((("*.log",), ("/srv/**",)),)),
    Measure((Layer.FILES,), 12.5, full=True),
    Beat(3),
    Pinned(INSTANCE, "boot", 1.25),
    Covered(CLAIMS.coverage),
    Observed(Observation(Layer.FILES, "ab" * 32, Method.FULL, 1.0, 1.0, 3), has_body=True),
    Swept(1, 2, 0, 3, 4.5),
    Sever(1, ("127.0.0.1:9443", "[::1]:9443")),
    Severed(1, 2, 0),
    Fault("it broke", "here", ""),
    FileFact(1.0, "/srv/app/x", FileChange.REMOVED, actor=Actor(7, "/bin/sh")),
    MountFact(1.0, "/srv/app", mounted=True, kind="tmpfs"),
    ExecutionFact(1.0, "/bin/sh", "ab" * 32, Actor(7), Sighting.EVENT, temporary="tmpfs", gains="user 0"),
    ScriptFact(1.0, "/srv/app/x.py", "ab" * 32, Actor(7), Sighting.EVENT),
    PreloadFact(1.0, "LD_PRELOAD", "/x.so", Actor(7), "/x.so.1", "ab" * 32),
    RefusalFact(1.0, "/tmp/x", "", Actor(7), deleted=True, pid_inside=2),
    channel.Gate(stands=True),
    StdioFact(1.0, Actor(7, "/bin/sh"), (0, 1), "TCP", Opened.HERE, "203.0.113.9:4444"),
    EgressFact(1.0, Actor(7, "/bin/sh"), "udp", "2001:db8::9", 53),
    Scope(42, ("/srv/app",), egress=(), egress_every=0.5),
    channel.Whose(3, 7, 1.5),
    channel.Owned(3, workload=True, process=Actor(7, "/bin/sh", 6)),
    channel.Owned(3, workload=None),
    EgressFact(1.0, Actor(7, "/bin/sh"), "raw", "", 0, passage=Passage.REFUSED),
    Scope(42, ("/srv/app",), egress=(), egress_every=0.5, fence=channel.Fence.LISTED),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_to_and_from_the_measurer_reads_back(message: channel.Message) -> None:
    assert channel.decode(channel.encode(message)) == message


@pytest.mark.parametrize(
    "datagram", [b"", b"[]", b"{}", b'{"is":"Nothing"}', b'{"is":"Beat"}', b'{"is":"Beat","number":1,"x":2}', b"\xff"]
)
def test_a_datagram_that_is_no_message_is_refused(datagram: bytes) -> None:
    with pytest.raises(InvalidInput):
        channel.decode(datagram)


def test_a_datagram_that_would_not_fit_is_not_sent() -> None:
    with pytest.raises(InvalidInput, match="bytes"):
        channel.encode(Scope(1, ("/" + "x" * channel.MOST_BYTES,)))


@pytest.mark.parametrize(
    "entry",
    [
        manifest.Entry("/x\0capabilities", manifest.FILE, 0, 0, 0, 1, "ab" + "0" * 62),
        manifest.Entry("/x", manifest.CAPABILITIES, 0, 0, 0, 1, "ab" + "0" * 62),
        manifest.Entry("/x\0else", manifest.CAPABILITIES, 0, 0, 0, 1, "ab" + "0" * 62),
        manifest.Entry("/x\0y\0capabilities", manifest.CAPABILITIES, 0, 0, 0, 1, "ab" + "0" * 62),
        manifest.Entry("\0capabilities", manifest.CAPABILITIES, 0, 0, 0, 1, "ab" + "0" * 62),
        manifest.Entry("/x\0capabilities", manifest.CAPABILITIES, 0, 0, 0, 0, "0" * 64),
        manifest.Entry("/x\0capabilities", manifest.CAPABILITIES, 0, 0, 0, 33, "ab" * 32),
        manifest.Entry("/x\0capabilities", manifest.CAPABILITIES, 0, 0, 0, 1, "ab" * 32),
    ],
)
def test_capabilities_that_are_not_written_in_their_one_form_are_refused(entry: manifest.Entry) -> None:
    with pytest.raises(MalformedEvidence):
        list(manifest.unpack(manifest.pack([entry])))
