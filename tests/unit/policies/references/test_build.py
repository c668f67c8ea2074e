"""From a file system to reference values: what is stated, what may be executed, and what was left out and why."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from attestation import elf
from attestation.errors import InvalidInput
from policies.author.references import folder
from policies.author.references.build import Report, Wishes, spec_of
from policies.author.references.images import Start
from policies.author.references.programs import HEAD, Program, program
from policies.author.references.tree import Tree
from policies.model.references import ReferenceSpec
from tests.unit.policies.references.packing import Put, budget, digest, linked, packed
from tests.unit.policies.references.test_layers import contents, flattened

LOADER = "/lib64/ld-linux-x86-64.so.2"
LINKED = linked(LOADER.encode())
SYSTEM = (
    Put("lib64", link="usr/lib64"),
    Put("usr/lib64/ld-linux-x86-64.so.2", b"loader", mode=0o755),
    Put("bin", link="usr/bin"),
    Put("usr/bin/python3.11", LINKED, mode=0o755),
    Put("usr/bin/python3", link="python3.11"),
    Put("usr/bin/env", LINKED + b"env", mode=0o755),
    Put("usr/bin/static", b"\x7fELF", mode=0o755),
    Put("srv/app/run", b"#!/usr/bin/env python3\n", mode=0o755),
    Put("srv/app/tool", b"#! /bin/python3 -E\n", mode=0o755),
    Put("srv/app/main.py", b"print()", mode=0o644),
)
SEARCH = ("/usr/local/bin", "/usr/bin")


def built(*puts: Put, start: Start = Start(), **wishes: Any) -> tuple[ReferenceSpec, Report]:  # noqa: B008 - it is frozen
    report = Report()
    return spec_of(flattened(packed(*(puts or SYSTEM))), start, Wishes(**wishes), report), report


def started(*words: str, folder: str = "/", search: tuple[str, ...] = SEARCH) -> tuple[set[str], Report]:
    spec, report = built(start=Start(words, folder, search))
    return set(spec.executables), report


# --- files ---


def test_every_file_and_link_is_stated_with_its_content_and_mode() -> None:
    spec, _ = built()
    assert spec.files["/srv/app/run"].digests == (digest(b"#!/usr/bin/env python3\n"),)
    assert spec.files["/srv/app/run"].mode == 0o755
    link = spec.files["/usr/bin/python3"]
    assert (link.digests, link.mode) == ((hashlib.sha256(b"python3.11").hexdigest(),), 0o777)
    assert spec.files["/srv/app/run"].uid is None


def test_owners_are_stated_where_that_is_wished_for() -> None:
    spec, _ = built(Put("a", b"", uid=33, gid=0), Put("b", link="a", uid=7), owners=True)
    assert [(each.uid, each.gid) for each in spec.files.values()] == [(33, 0), (7, 0)]


def test_only_what_is_included_is_stated_and_what_is_left_out_is_told() -> None:
    spec, report = built(
        *SYSTEM, Put("srv/app/x.log", b""), Put("srv/app/dev", device=True), Put("srv/apple", b""),
        include=("/srv/app",), volatile=("*.log",),
    )  # fmt: skip
    assert spec.files.keys() == {"/srv/app/run", "/srv/app/tool", "/srv/app/main.py"}
    told = {what: (each.count, each.examples) for what, each in report.skipped.items()}
    assert told == {"volatile": (1, ["/srv/app/x.log"]), "device": (1, ["/srv/app/dev"])}


def test_a_name_that_is_no_text_is_left_out_and_told() -> None:
    spec, report = built(Put(os.fsdecode(b"caf\xe9"), b""), Put("good", b""))
    assert spec.files.keys() == {"/good"}
    assert report.skipped["unnameable"].count == 1


def test_few_of_very_many_are_named_and_all_are_counted() -> None:
    _, report = built(*(Put(f"dev/{number}", device=True) for number in range(50)))
    assert (report.skipped["device"].count, len(report.skipped["device"].examples)) == (50, 20)


# --- what may be executed ---


def test_a_program_may_run_by_its_real_path_with_its_loader_by_the_name_that_it_asks_for() -> None:
    spec, _ = built(executables=("/bin/python3",))
    assert spec.executables == {"/usr/bin/python3.11": (digest(LINKED),), LOADER: (digest(b"loader"),)}


def test_a_script_may_run_with_what_interprets_it_also_where_env_looks_for_it() -> None:
    spec, _ = built(executables=("/srv/app/run",))
    assert spec.executables.keys() == {"/srv/app/run", "/usr/bin/env", "/usr/bin/python3.11", LOADER}
    spec, _ = built(executables=("/srv/app/tool",))
    assert spec.executables.keys() == {"/srv/app/tool", "/usr/bin/python3.11", LOADER}


def test_by_a_pattern_everything_with_an_x_bit_may_run() -> None:
    spec, _ = built(executables=("/srv/app/**",))
    assert "/srv/app/main.py" not in spec.executables
    assert {"/srv/app/run", "/srv/app/tool"} <= spec.executables.keys()
    _, report = built(executables=("*.so",))
    assert any("adds nothing" in note for note in report.notes)


def test_nothing_may_run_unless_somebody_says_so_and_that_is_told() -> None:
    spec, report = built()
    assert spec.executables == {}
    assert report.notes == ["Nothing may be executed by these: name programs by --executable."]


@pytest.mark.parametrize("wished", ["/bin/absent", "/srv/app", "/dev"])
def test_a_program_that_is_not_there_is_refused(wished: str) -> None:
    with pytest.raises(InvalidInput, match="no file that is there"):
        built(executables=(wished,))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("python3", "main.py"), {"/usr/bin/python3.11", LOADER}),
        (("/usr/bin/static", "--", "python3"), {"/usr/bin/static", "/usr/bin/python3.11", LOADER}),
        (("/usr/bin/static", "/srv/app/tool"), {"/usr/bin/static", "/srv/app/tool", "/usr/bin/python3.11", LOADER}),
        (("static", "env"), {"/usr/bin/static"}),
        (("/usr/bin/static", "/srv/app/main.py"), {"/usr/bin/static"}),
    ],
)
def test_what_an_image_starts_may_run(words: tuple[str, ...], found: set[str]) -> None:
    assert started(*words)[0] == found


def test_a_relative_command_counts_from_the_folder_that_the_image_names() -> None:
    assert "/srv/app/tool" in started("./tool", folder="/srv/app")[0]


@pytest.mark.parametrize("search", [(), ("/nowhere",)])
def test_a_command_that_is_not_there_is_told(search: tuple[str, ...]) -> None:
    found, report = started("absent", search=search)
    assert found == set()
    assert "The image starts 'absent', which is not in it." in report.notes


def test_what_is_needed_and_not_there_is_told() -> None:
    _, report = built(Put("bin/a", LINKED, mode=0o755), Put("bin/b", b"#!/bin/sh", mode=0o755), executables=("/bin/*",))
    assert any(f"/bin/a asks for the loader {LOADER}" in note for note in report.notes)
    assert "/bin/sh is executed, and is no file that is there." in report.notes


def test_scripts_that_interpret_each_other_end() -> None:
    spec, _ = built(Put("a", b"#!/b", mode=0o755), Put("b", b"#!/a", mode=0o755), executables=("/a",))
    assert spec.executables.keys() == {"/a", "/b"}


# --- programs ---


def test_the_loader_of_a_real_program_is_the_one_that_the_kernel_would_start() -> None:
    content = Path("/bin/sh").resolve().read_bytes()
    said = subprocess.run(["readelf", "-l", "/bin/sh"], capture_output=True, text=True, check=False).stdout
    found = program(content[:HEAD], len(content)).loader
    assert found.startswith("/lib")
    assert not said or f"[Requesting program interpreter: {found}]" in said


def test_a_loader_whose_name_lies_beyond_what_is_looked_at_is_not_taken_for_none() -> None:
    whole = linked(b"/lib/ld.so", HEAD + 100)
    assert elf.interpreter(lambda size, offset: whole[offset : offset + size]) == "/lib/ld.so"
    assert program(whole[:HEAD], len(whole)) == Program(hidden=True)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"#!/bin/sh\n", ("/bin/sh",)),
        (b"#!  /bin/sh  -e x \nmore", ("/bin/sh", "-e x")),
        (b"#!/bin/sh", ("/bin/sh",)),
        (b"#!\n", ("",)),
        (b"#!/" + b"x" * 1000, ("/" + "x" * 253,)),
    ],
)
def test_the_first_line_of_a_script_is_read_as_the_kernel_reads_it(head: bytes, words: tuple[str, ...]) -> None:
    assert program(head, len(head)).interpreter == words


# --- a folder of this machine ---


def study(path: Path, **wishes: Any) -> tuple[Tree, ReferenceSpec, Report]:
    tree, report = folder.read(path, budget(), ("srv", "app")), Report()
    return tree, spec_of(tree, Start(), Wishes(**wishes), report), report


def test_a_folder_is_read_in_place_and_stated_where_the_workload_has_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_bytes(b"1")
    (tmp_path / "sub/file").chmod(0o640)
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        _, spec, report = study(tmp_path)
    assert {path: each.digests[0] for path, each in spec.files.items()} == {
        "/srv/app/link": digest(b"/etc/passwd"),
        "/srv/app/sub/file": digest(b"1"),
    }
    assert spec.files["/srv/app/sub/file"].mode == 0o640
    assert report.skipped.keys() == {"fifo", "socket"}


def test_a_folder_and_its_archive_state_the_same(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    for number in range(30):
        (tmp_path / f"app/{number}").write_bytes(bytes([number]))
    (tmp_path / "app/link").symlink_to("3")
    os.link(tmp_path / "app/5", tmp_path / "app/hard")
    made = subprocess.run(["tar", "-c", "-C", tmp_path / "app", "."], capture_output=True, check=True).stdout
    assert contents(folder.read(tmp_path / "app", budget())) == contents(flattened(made, whiteouts=False))


def test_nothing_is_looked_at_but_what_is_included(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/a").write_bytes(b"1")
    (tmp_path / "huge").write_bytes(bytes(1 << 20))
    tree, report = folder.read(tmp_path, budget(most_bytes=1000)), Report()
    assert spec_of(tree, Start(), Wishes(include=("/open",)), report).files.keys() == {"/open/a"}
    with pytest.raises(InvalidInput, match="when it is unpacked"):
        spec_of(tree, Start(), Wishes(), report)


def test_what_is_mounted_in_it_is_no_part_of_a_folder() -> None:
    report = Report()
    spec = spec_of(folder.read(Path("/"), budget()), Start(), Wishes(include=("/proc",)), report)
    assert spec.files == {}
    assert report.skipped["mount"].examples == ["/proc"]


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"1")
    (tmp_path / "app/link").symlink_to(tmp_path / "outside")
    tree = folder.read(tmp_path / "app", budget())
    assert contents(tree).keys() == {"/link"}
    assert tree.resolve("/link/secret") is None


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "app/sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"1")
    tree = folder.read(tmp_path / "app", budget())
    assert tree.at(("sub",)) is not None
    (tmp_path / "app/sub").rmdir()
    (tmp_path / "app/sub").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidInput, match="cannot be read"):
        contents(tree)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="absent: it cannot be read: No such file"):
        folder.read(tmp_path / "absent", budget())


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(3 << 20))
    counted: list[int] = []

    def told(count: int) -> None:
        counted.append(count)
        if len(counted) == 2:
            file.write_bytes(b"other")

    reading = budget()
    reading.told = told
    with pytest.raises(InvalidInput, match="it changes while it is read"):
        contents(folder.read(tmp_path, reading))
