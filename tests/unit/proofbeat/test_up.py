"""What `proofbeat up` decides: what is measured and learned, where a program listens, and whether a call passed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path

import pytest

from attestation.errors import InvalidInput, Unavailable
from authority import config as authority_config
from proofbeat.ephemeral import folder
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Watch
from proofbeat.telling import Telling
from proofbeat.up.layout import Layout
from proofbeat.up.listening import Port, listening, listening_locally
from proofbeat.up.mesh import MOST_TRIES, attested_since
from proofbeat.up.program import Program
from proofbeat.up.scope import folders, named
from proofbeat.up.story import Story
from proofbeat.up.trying import call
from proofbeat.up.wishes import Wishes
from sidecar import config as sidecar_config
from telemetry.settings import TelemetrySettings
from xds.resources.service import Application

HOME, CWD = Path("/home/ada"), Path("/home/ada/shop")
FILES = frozenset(
    {
        Path("/home/ada/shop/app/main.py"),
        Path("/home/ada/shop/shop.ini"),
        Path("/usr/bin/python3"),
        Path("/home/ada/.pyenv/python"),
        Path("/opt/shop/main.py"),
    }
)
FOLDERS = frozenset({Path("/home/ada/shop"), Path("/home/ada/shop/app"), Path("/home/ada/static"), HOME, Path("/")})


def chosen(*command: str, cwd: Path = CWD) -> tuple[str, ...]:
    return folders(command, cwd, HOME, FILES.__contains__, FOLDERS.__contains__)


def test_a_program_is_measured_in_the_folder_of_the_script_that_its_command_names() -> None:
    assert chosen("/usr/bin/python3", "app/main.py", "--port", "8080") == ("/home/ada/shop/app",)
    assert chosen("/home/ada/.pyenv/python", "app/main.py") == ("/home/ada/shop/app",)
    assert chosen("app/main.py") == ("/home/ada/shop/app",)


def test_a_folder_that_the_command_names_is_measured_and_one_within_another_is_not_named_twice() -> None:
    assert chosen("serve", "../static", "app/main.py", "shop.ini") == ("/home/ada/shop", "/home/ada/static")


def test_a_script_below_opt_is_measured_there_for_that_is_where_programs_of_ones_own_are_put() -> None:
    assert chosen("/usr/bin/python3", "/opt/shop/main.py") == ("/opt/shop",)


def test_an_argument_that_is_longer_than_any_name_names_no_file() -> None:
    program = folders(("python3", "-c", "pass;" * 1000), CWD, HOME, Path.is_file, Path.is_dir)
    assert program == ("/home/ada/shop",)


def test_a_command_that_names_nothing_is_measured_where_it_is_started() -> None:
    assert chosen("python3", "-m", "http.server") == ("/home/ada/shop",)


@pytest.mark.parametrize("cwd", [HOME, Path("/"), Path("/tmp"), Path("/etc"), Path("/opt")])
def test_a_folder_that_others_write_to_as_well_is_refused_with_the_option_that_names_a_better_one(cwd: Path) -> None:
    with pytest.raises(InvalidInput, match="--include"):
        chosen("python3", "-m", "http.server", cwd=cwd)


def test_what_is_named_is_measured_without_links_and_once(tmp_path: Path) -> None:
    (tmp_path / "app" / "code").mkdir(parents=True)
    (tmp_path / "link").symlink_to("app")
    found = named([tmp_path / "link", tmp_path / "app" / "code", tmp_path / "link" / ".." / "app"], HOME)
    assert found == (str(tmp_path / "app"),)


@pytest.mark.parametrize("target", [None, "circle"])
def test_what_is_named_and_not_there_is_refused_by_its_name(tmp_path: Path, target: str | None) -> None:
    if target:
        (tmp_path / "circle").symlink_to(target)
    with pytest.raises(InvalidInput, match="circle"):
        named([tmp_path / "circle"], HOME)


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


def test_a_local_socket_that_accepts_is_named_and_one_that_is_connected_is_not() -> None:
    table = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 71 /run/app.sock\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 72 /run/app.sock\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 73 @abstract name\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 99 /run/other.sock\n"
    )
    assert listening_locally(table, {"71", "72", "73"}) == ["/run/app.sock", "@abstract name"]


REFUSED, SERVED = False, True
PASSED_ON = b"x-envoy-upstream-service-time: 1\r\n"
PROBLEM = b"content-type: application/problem+json\r\n"
OUR_DENIAL = b'{"status":403,"detail":"rbac_access_denied_matched_policy[file-modified:c-1]"}'


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"HTTP/1.1 200 OK\r\n" + PASSED_ON + b"\r\nhello", SERVED),
        (b"HTTP/1.1 503 Service Unavailable\r\n" + PASSED_ON + b"\r\nnot today", SERVED),
        (b"HTTP/1.1 403 Forbidden\r\n" + PASSED_ON + b"\r\n", SERVED),
        (b"HTTP/1.1 403 Forbidden\r\n" + PASSED_ON + PROBLEM + b'\r\n{"detail":"members only"}', SERVED),
        (b"HTTP/1.1 500 Oops\r\n" + PASSED_ON + PROBLEM + b"\r\n" + OUR_DENIAL, SERVED),
        (b"HTTP/1.1 403 Forbidden\r\n" + PASSED_ON + PROBLEM + b"\r\n" + OUR_DENIAL, REFUSED),
        (b"HTTP/1.1 403 Forbidden\r\n" + PROBLEM + b"\r\n" + OUR_DENIAL, REFUSED),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nupstream connect error", REFUSED),
        (b"", REFUSED),
        (b"HTTP/1.1 200 OK\r\n", REFUSED),
    ],
)
def test_a_call_was_refused_where_envoy_says_so_and_not_where_the_service_does(
    tmp_path: Path, answer: bytes, verdict: bool
) -> None:
    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    assert called(tmp_path, "http", answering) is verdict


@pytest.mark.parametrize(("first", "verdict"), [(b"220 ready\r\n", SERVED), (None, SERVED), (b"", REFUSED)])
def test_a_connection_got_through_where_it_stays_open_or_brings_a_word(
    tmp_path: Path, first: bytes | None, verdict: bool
) -> None:
    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if first is None:
            await reader.read()
        else:
            writer.write(first)
        writer.close()

    assert called(tmp_path, "tcp", greeting) is verdict


def called(
    folder: Path,
    protocol: Application,
    service: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> bool:
    """One call of what stands where Envoy would."""

    async def scenario() -> bool:
        async with await asyncio.start_server(service, "127.0.0.1") as server:
            host, port = server.sockets[0].getsockname()
            return await call(Layout.make(folder, protocol, f"{host}:{port}"))

    return asyncio.run(scenario())


def test_nobody_is_called_where_nobody_listens(tmp_path: Path) -> None:
    assert asyncio.run(call(Layout.make(tmp_path, "http", "127.0.0.1:1"))) is REFUSED


def test_what_is_written_for_a_run_is_what_its_programs_read(tmp_path: Path) -> None:
    layout = Layout.make(tmp_path, "tcp", "127.0.0.1:7000")
    layout.write_authority(3600.0, TelemetrySettings())
    layout.write_settings(42, "a token", Port(8080, "::1"))
    authority = authority_config.load(layout.authority_config)
    sidecar = sidecar_config.load(layout.workload.config)
    assert authority.trust_domain == sidecar.trust_domain == layout.trust_domain
    assert sidecar.authority.url == f"https://{authority.listen}"
    assert sidecar.authority.bundle.parent == authority.ca.folder
    assert sidecar.enrolment.join_token_file.read_text() == "a token"
    assert sidecar.workload.pid == 42
    assert sidecar.delivery.service is not None
    (inbound,), (upstream,) = sidecar.delivery.service.inbound, sidecar.delivery.service.upstreams
    assert (inbound.app, upstream.listen, inbound.protocol) == ("[::1]:8080", "127.0.0.1:7000", "tcp")
    assert (upstream.peers, inbound.callers) == ((inbound.listen,), upstream.identities)


def test_a_folder_to_work_in_that_cannot_be_made_is_told_with_what_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(Unavailable, match=r"missing.*No such file or directory.*TMPDIR"):
        folder.make("up")


@pytest.mark.parametrize("opened_first", [True, False])
def test_a_story_that_is_over_waits_for_no_call_to_be_served(tmp_path: Path, opened_first: bool) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            story, _ = told(tmp_path, tasks)
            for turn in (opened_first, not opened_first):
                if turn:
                    story.heard({"event": "opened"})
                else:
                    story.over()

    asyncio.run(scenario())


def test_a_sidecar_is_given_up_after_so_many_tries_and_after_no_time() -> None:
    said, refused, tried = Watch(), {"event": "enrolment-refused"}, {"event": "round-failed"}
    began = now()
    for line in (refused, *[tried] * (MOST_TRIES - 2)):
        said.hear(line)
    assert attested_since(began, said) is None
    said.hear({"event": "round", "tier": "contraindicated"})
    assert attested_since(began, said) is False
    assert attested_since(now(), said) is None


def test_a_sidecar_that_is_attested_in_its_last_try_is_attested() -> None:
    said, began = Watch(), now()
    for line in (*[{"event": "round"}] * MOST_TRIES, {"event": "phase", "phase": "fresh"}):
        said.hear(line)
    assert attested_since(began, said) is True


def test_a_violation_of_a_file_is_told_once_with_what_mends_it_and_the_option_that_allows_it(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with asyncio.TaskGroup() as tasks:
            story, out = told(tmp_path, tasks)
            line = {"event": "violation", "mend": "Remove it.", "subject": "/app/the log"}
            for kind, cause in (
                ("file-unreferenced", "c-1"),
                ("file-unreferenced", "c-2"),
                ("execution-foreign", "c-3"),
            ):
                story.heard({**line, "kind": kind, "cause": cause, "text": f"it is {kind}"})
            return out.getvalue()

    said = asyncio.run(scenario())
    assert said.count("violation: it is file-unreferenced") == said.count("violation: it is execution-foreign") == 1
    assert said.count("to mend it: Remove it.") == 2
    assert said.count("--volatile '/app/the log'") == 1


def told(folder: Path, tasks: asyncio.TaskGroup) -> tuple[Story, StringIO]:
    """A story of a service where nobody listens, and what is said of it."""
    out = StringIO()
    layout = Layout.make(folder, "http", "127.0.0.1:1")
    wished = Wishes(Program(["x"], folder, 1.0, None))
    return Story(wished, layout, ("/app",), None, Telling(out), tasks), out
