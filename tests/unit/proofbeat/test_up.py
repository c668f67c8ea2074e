"""What `proofbeat up` decides before anything runs: what to measure, what was learned, where a program listens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from attestation.errors import InvalidInput
from policies.model.references import FileReference, ReferenceSpec
from proofbeat.up.layout import Layout
from proofbeat.up.learning import learned
from proofbeat.up.listening import Port, listening
from proofbeat.up.mesh import Program
from proofbeat.up.run import Story, Wishes
from proofbeat.up.scope import folders

HOME, CWD = Path("/home/ada"), Path("/home/ada/shop")
FILES = frozenset(
    {
        Path("/home/ada/shop/app/main.py"),
        Path("/home/ada/shop/shop.ini"),
        Path("/usr/bin/python3"),
        Path("/home/ada/.pyenv/python"),
    }
)
FOLDERS = frozenset({Path("/home/ada/shop"), Path("/home/ada/shop/app"), Path("/home/ada/static"), HOME, Path("/")})
ONE, OTHER = "1" * 64, "2" * 64


def chosen(*command: str, cwd: Path = CWD) -> tuple[str, ...]:
    return folders(command, cwd, HOME, FILES.__contains__, FOLDERS.__contains__)


def test_a_program_is_measured_in_the_folder_of_the_script_that_its_command_names() -> None:
    assert chosen("/usr/bin/python3", "app/main.py", "--port", "8080") == ("/home/ada/shop/app",)
    assert chosen("/home/ada/.pyenv/python", "app/main.py") == ("/home/ada/shop/app",)
    assert chosen("app/main.py") == ("/home/ada/shop/app",)


def test_a_folder_that_the_command_names_is_measured_and_one_within_another_is_not_named_twice() -> None:
    assert chosen("serve", "../static", "app/main.py", "shop.ini") == ("/home/ada/shop", "/home/ada/static")


def test_a_command_that_names_nothing_is_measured_where_it_is_started() -> None:
    assert chosen("python3", "-m", "http.server") == ("/home/ada/shop",)


@pytest.mark.parametrize("cwd", [HOME, Path("/"), Path("/tmp"), Path("/etc")])
def test_a_folder_that_others_write_to_as_well_is_refused_with_the_option_that_names_a_better_one(cwd: Path) -> None:
    with pytest.raises(InvalidInput, match="--include"):
        chosen("python3", "-m", "http.server", cwd=cwd)


def _spec(files: dict[str, str], executables: dict[str, tuple[str, ...]] | None = None) -> ReferenceSpec:
    return ReferenceSpec(
        files={path: FileReference(digests=(digest,)) for path, digest in files.items()}, executables=executables or {}
    )


def test_what_was_the_same_twice_is_referenced_and_what_still_changed_is_volatile() -> None:
    earlier = _spec({"/a/code": ONE, "/a/log": ONE, "/a/gone": ONE})
    found = learned("app", earlier, _spec({"/a/code": ONE, "/a/log": OTHER, "/a/new": ONE}))
    assert set(found.references.spec.files) == {"/a/code"}
    assert found.volatile == ("/a/gone", "/a/log", "/a/new")


def test_whatever_was_seen_to_run_may_run() -> None:
    earlier = _spec({}, {"/bin/sh": (ONE,)})
    found = learned("app", earlier, _spec({}, {"/bin/app": (ONE,)}), {"/bin/sh": {OTHER}, "/bin/ls": {ONE}})
    assert found.references.spec.executables == {"/bin/app": (ONE,), "/bin/ls": (ONE,), "/bin/sh": (ONE, OTHER)}


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 71 1 0 100 0 0 10 0
   1: 0B00007F:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 72 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 73 1 0 100 0 0 10 0
   3: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0
"""
TABLE_6 = """  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 71 1
   1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 72 1
   2: 0000000000000000FFFF00000100007F:0052 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 73 1
"""


def test_only_listening_sockets_of_the_program_itself_count() -> None:
    assert listening(TABLE, {"71", "72", "73"}) == {Port(8080, "127.0.0.1"), Port(8443, "127.0.0.11")}


def test_every_address_of_the_second_family_is_written_as_a_configuration_takes_it() -> None:
    found = sorted(listening(TABLE_6, {"71", "72", "73"}))
    assert [str(port) for port in found] == ["[::1]:80", "[::1]:81", "127.0.0.1:82"]


@pytest.mark.parametrize("opened_first", [True, False])
def test_a_story_that_is_over_waits_for_no_call_to_be_served(tmp_path: Path, opened_first: bool) -> None:
    async def scenario() -> None:
        layout = Layout.make(tmp_path, "http", "127.0.0.1:1")  # where nobody listens
        wishes = Wishes(Program(["x"], tmp_path, 1.0, None), (), (), 1.0, None, "http", attempt=False, as_json=True)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            story = Story(wishes, layout, ("/app",), tasks)
            for turn in (opened_first, not opened_first):
                if turn:
                    story.heard({"event": "opened"})
                else:
                    story.over()

    asyncio.run(scenario())
