"""Tar archives: what every common program writes is read alike, and what readers differ about is refused."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import InvalidInput
from policies.author.references import tar
from policies.author.references.streams import chunks
from policies.author.references.tar import Kind
from tests.unit.policies.references.packing import END, Put, budget, gnu, header, member, packed, padded, pax

Found = tuple[str, Kind, int, int, int, str, bytes]


def read(archive: bytes) -> list[Found]:
    return [
        ("/".join(entry.path), entry.kind, entry.mode, entry.uid, entry.gid, entry.target, b"".join(chunks(content)))
        for entry, content in tar.entries(io.BytesIO(archive), budget(), "x.tar")
    ]


def fault(archive: bytes) -> str:
    with pytest.raises(InvalidInput) as raised:
        read(archive)
    assert raised.value.where == "x.tar"
    return raised.value.sentence


# --- honest archives ---

NAMES = st.text(
    st.characters(exclude_characters="/\0", categories=("L", "N", "P", "S", "Z", "M", "Cc", "Cf", "Co")),
    min_size=1,
    max_size=60,
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)
ATTRIBUTES = {
    "mode": st.integers(0, 0o7777),
    "uid": st.integers(0, 1 << 34),
    "gid": st.sampled_from([0, 0o7777777, 1 << 31]),
}
PUTS = st.one_of(
    st.builds(Put, PATHS, content=st.binary(max_size=1500), **ATTRIBUTES),
    st.builds(Put, PATHS, link=PATHS, **ATTRIBUTES),
    st.builds(Put, PATHS, hard=PATHS, **ATTRIBUTES),
    st.builds(Put, PATHS, **ATTRIBUTES),
)


@settings(deadline=None)
@given(st.lists(PUTS, max_size=8), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_what_the_standard_library_writes_is_read_as_it_was_meant(puts: list[Put], form: int) -> None:
    kinds = {True: Kind.FILE, False: Kind.FOLDER}
    assert read(packed(*puts, form=form)) == [
        (
            put.path,
            Kind.LINK if put.link else Kind.HARD_LINK if put.hard else kinds[put.content is not None],
            put.mode,
            put.uid,
            put.gid,
            put.link or put.hard,
            put.content or b"",
        )
        for put in puts
    ]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes_is_read_as_it_lies_on_disk(tmp_path: Path, form: str) -> None:
    there = tmp_path / "there"
    deep = there / ("d" * 40) / ("e" * 40) if form != "v7" else there / "d"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"content" * 1000)
    (deep / "program").write_bytes(b"")
    (deep / "program").chmod(0o4755)
    (deep / "link").symlink_to("../file")
    os.link(deep / "file", there / "hard")
    made = subprocess.run(
        ["tar", "-c", f"--format={form}", "--numeric-owner", "-C", there, "."], capture_output=True, check=True
    )
    found = {path: (kind, mode, target, content) for path, kind, mode, _, _, target, content in read(made.stdout)}
    place = str(deep.relative_to(there))
    assert found[f"{place}/program"][:2] == (Kind.FILE, 0o4755)
    assert found[f"{place}/link"][::2] == (Kind.LINK, "../file")
    assert found[""][0] is Kind.FOLDER
    files = {found["hard"][0], found[f"{place}/file"][0]}
    assert files == {Kind.FILE, Kind.HARD_LINK}
    assert {found["hard"][3], found[f"{place}/file"][3]} == {b"content" * 1000, b""}


def test_names_that_are_no_text_are_kept_as_they_are() -> None:
    assert read(member(b"caf\xe9") + END)[0][0].encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert read(pax({"path": b"caf\xe9"}) + member() + END)[0][0].encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_a_name_in_two_halves_is_put_together_where_the_archive_is_posix() -> None:
    assert read(member(b"name", prefix=b"around/it") + END)[0][0] == "around/it/name"
    assert read(member(b"name", prefix=b"around/it", magic=b"ustar  \0") + END)[0][0] == "name"


def test_paths_are_the_same_however_they_are_spelled() -> None:
    archive = b"".join(map(member, (b"./a", b"/b", b"c//d", b"e/./f"))) + END
    assert [each[0] for each in read(archive)] == ["a", "b", "c/d", "e/f"]


def test_attributes_that_are_not_measured_are_passed_over() -> None:
    record: dict[str, str | bytes] = {"SCHILY.xattr.user.x": "y", "mtime": "1.5", "comment": "hello"}
    assert read(pax(record) + pax({"comment": "a commit"}, b"g") + member(content=b"x") + END)[0][6] == b"x"


def test_an_old_archive_says_folder_by_a_slash() -> None:
    assert read(header(b"old/", flag=b"\0", magic=b"") + END)[0][:2] == ("old", Kind.FOLDER)


def test_content_that_nobody_reads_is_passed_over() -> None:
    archive = member(b"a", b"x" * 5000) + member(b"b", b"y") + END
    assert [entry.path for entry, _ in tar.entries(io.BytesIO(archive), budget(), "x")] == [("a",), ("b",)]


# --- hostile ones ---


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (member(b"../a") + END, "leads out of the archive"),
        (member(b"a/../../b") + END, "leads out of the archive"),
        (pax({"path": "../../etc/passwd"}) + member() + END, "leads out of the archive"),
        (gnu(b"L", b"x/../../y") + member() + END, "leads out of the archive"),
        (pax({"path": "n" * 256}) + member() + END, "no file can have"),
        (pax({"path": "/".join(["n" * 200] * 30)}) + member() + END, "no file can have"),
        (pax({"path": b"a\0b"}) + member() + END, "NUL"),
        (b"", "cut short"),
        (member(content=b"x" * 600)[:700], "cut short"),
        (member(content=b"x" * 600)[:-100], "cut short"),
        (member(), "cut short"),
        (member() + bytes(512), "cut short"),
        (member() + bytes(512) + member(b"b") + END, "one block of zeros"),
        (member() + END + member(b"b") + END, "behind its end"),
        (header(checksum=b"0000000\0") + END, "checksum"),
        (header(checksum=b"       \0") + END, "checksum"),
        (header(checksum=b"99999999") + END, "checksum"),
        (header(size=b"-0000000001\0") + END, "a number that is none"),
        (header(size=b"\xff" * 12) + END, "a number that is none"),
        (header(size=b"\x80" + b"\0" * 10 + b"\xff") + END, "cut short"),
        (header(size=b"\x80" + b"\xff" * 11) + END, "cut short"),
        (header(mode=b"rw-r--r-") + END, "a number that is none"),
        (header(flag=b"S") + END, "sparse"),
        (pax({"GNU.sparse.major": "1"}) + member() + END, "sparse"),
        (header(flag=b"Z") + END, "not everybody reads"),
        (header(flag=b"N") + END, "not everybody reads"),
        (pax({"path": "a"}, b"g") + member(b"b") + END, "path for all entries"),
        (pax({"size": "5"}, b"g") + member(b"b") + END, "size for all entries"),
        (pax({"path": "a"}) + END, "belongs to no entry"),
        (gnu(b"L", b"a") + END, "belongs to no entry"),
        (pax({"path": "a"}) + pax({"path": "b"}) + member() + END, "two extended headers with a path"),
        (pax({"path": "a"}) + gnu(b"L", b"b") + member() + END, "two extended headers with a path"),
        (header(flag=b"x", size=12) + padded(b"6 path=a\n   ") + member() + END, "no list of records"),
        (header(flag=b"x", size=11) + padded(b"99 path=aa\n") + member() + END, "no list of records"),
        (header(flag=b"x", size=11) + padded(b"11 pathaaa\n") + member() + END, "no list of records"),
        (header(flag=b"x", size=4) + padded(b"0 a\n") + member() + END, "no list of records"),
        (header(flag=b"x", size=2 << 20) + bytes(2 << 20) + END, "an extended header of"),
        (pax({"size": "-1"}) + member() + END, "a size that is no number"),
        (pax({"size": "1e3"}) + member() + END, "a size that is no number"),
        (pax({"size": "٣"}) + member() + END, "a size that is no number"),
        (pax({"uid": "x"}) + member() + END, "a uid that is no number"),
        (header(flag=b"2", size=3, target=b"a") + padded(b"abc") + END, "a link with content"),
        (header(flag=b"1", size=3, target=b"a") + padded(b"abc") + END, "a hard link with content"),
        (header(flag=b"5", size=3) + padded(b"abc") + END, "a folder with content"),
        (header(flag=b"2") + END, "to nowhere"),
        (header(flag=b"1") + END, "to nowhere"),
        (gnu(b"K", b"t" * 5000) + header(flag=b"2") + END, "to nowhere"),
        (header(b"a/") + END, "a file by its kind and a folder by its name"),
    ],
)
def test_what_readers_differ_about_or_no_file_system_can_hold_is_refused(archive: bytes, words: str) -> None:
    assert words in fault(archive)


def test_two_records_of_one_keyword_are_refused() -> None:
    content = b"9 path=a\n9 path=b\n"
    assert "two path for one entry" in fault(header(flag=b"x", size=len(content)) + padded(content) + member() + END)


def test_more_paths_than_can_be_measured_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.author.references.bounds.MOST_ENTRIES", 3)
    assert len(read(member() * 3 + END)) == 3
    assert "more than 3 paths" in fault(member() * 4 + END)


def test_names_on_the_way_to_paths_and_to_what_is_linked_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.author.references.bounds.MOST_PARTS", 8)
    long = member(b"a/b/c/d")
    assert len(read(long * 2 + END)) == 2
    assert "more than 8 names" in fault(long * 2 + member() + END)
    assert "more than 8 names" in fault(long + header(flag=b"1", target=b"a/b/c/d/e") + END)


def test_extended_headers_and_their_records_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.author.references.bounds.MOST_EXTENDED", 3)
    two, said = pax({"mtime": "1", "comment": "x"}), "more than 3 extended headers and records"
    assert len(read(two + member() + END)) == 1
    assert said in fault(two + pax({}) + member() + END)
    assert said in fault(pax({"mtime": "1"}) * 2 + member() + END)
    assert said in fault(b"".join(gnu(b"L", b"a") + member() for _ in range(4)) + END)


def test_as_many_records_as_a_header_can_hold_are_read_in_a_moment() -> None:
    records = b"6 a=b\n" * ((1 << 20) // 6)
    before = time.process_time()
    assert read(header(flag=b"x", size=len(records)) + padded(records) + member() + END)
    assert time.process_time() - before < 2


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_no_bytes_are_answered_with_anything_but_a_refusal_or_entries(noise: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        read(noise)
