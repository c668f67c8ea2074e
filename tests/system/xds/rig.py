"""Real Envoys around our server: start, ask, call, and clean up, all bounded in time."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext, SSLError
from typing import Any, Literal

from tests.news import News
from xds.acks import Verdict
from xds.admission import Admission, Refusal
from xds.bootstrap import Bootstrap, delivered_bootstrap, envoy_bootstrap, envoy_command, write_bootstrap
from xds.listening import Endpoint
from xds.peer import Peer
from xds.resources.service import Application, HostPort, Inbound, Service, Upstream
from xds.resources.transport import Identities
from xds.server import Server

ENVOY = Path(sys.executable).with_name("envoy")
PATIENCE = 15.0
WORKERS_FOLLOW = 5.0
"""Seconds within which Envoy's workers have taken up what its main thread acknowledged. Milliseconds, but for a machine
that is busy."""
WORKERS_SETTLE = 0.15
REFUSED = (ConnectionError, SSLError, asyncio.IncompleteReadError)
"""What a connection or a handshake ends with that is refused."""
_FLUSH_SOON = ("--file-flush-interval-msec", "50")  # the access log, by default every ten seconds
LOCALHOST = "127.0.0.1"
SPIFFE_ID = "spiffe://example.org/app"
WORKLOADS = Identities(exact=(SPIFFE_ID,))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


@dataclass
class Events:
    """What the server reported, to be awaited by predicate."""

    verdicts: list[Verdict] = field(default_factory=list)
    refusals: list[tuple[Peer | None, Refusal]] = field(default_factory=list)
    _news: News = field(default_factory=News)

    def verdict(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self._news.tell()

    def refused(self, peer: Peer | None, refusal: Refusal) -> None:
        self.refusals.append((peer, refusal))
        self._news.tell()

    async def until(self, happened: Callable[[Events], bool]) -> None:
        await self._news.until(lambda: happened(self), PATIENCE)

    async def accepted(self, *names: str) -> None:
        """Every named resource has been acknowledged at least once."""
        await self.until(lambda events: set(names) <= {n for v in events.verdicts if v.accepted for n in v.resources})


def make_server(path: Path, events: Events, judged: Callable[[Verdict], None] | None = None) -> Server:
    """judged: hears the verdicts in the place of `events`."""
    rules = Admission(frozenset({os.getuid()}), on_refused=events.refused)
    return Server(Endpoint(path), rules, on_verdict=judged or events.verdict)


async def until(condition: Callable[[], bool]) -> None:
    """For what no event tells."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 -- the state belongs to another process, which has no event for it
            await asyncio.sleep(0.01)


@dataclass
class Answer:
    status: int
    body: bytes
    content_type: str = ""


class Caller:
    """An HTTP/1.1 client that keeps its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, tls: SSLContext | None = None) -> Caller:
        return cls(*await asyncio.open_connection(LOCALHOST, port, ssl=tls))

    @property
    def port(self) -> int:
        """Our own end's."""
        return int(self._writer.get_extra_info("sockname")[1])

    async def get(self) -> Answer:
        self._writer.write(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, *fields = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in fields if line)
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), body, headers.get("content-type", ""))

    async def until_status(self, status: int) -> None:
        """An acknowledgement comes from Envoy's main thread; its workers follow within moments."""
        await self.until_answer(lambda answer: answer.status == status)

    async def until_answer(self, wanted: Callable[[Answer], bool]) -> Answer:
        """As `until_status`: until an answer is one that is wanted."""
        async with asyncio.timeout(WORKERS_FOLLOW):
            while not wanted(answer := await self.get()):
                pass
        return answer

    async def close(self) -> None:
        self._writer.close()


async def call_once(port: int, tls: SSLContext | None = None) -> Answer:
    """A new connection and one request. Raises OSError or IncompleteReadError when it is refused."""
    caller = await Caller.connect(port, tls)
    try:
        return await caller.get()
    finally:
        await caller.close()


async def until_served(port: int, tls: SSLContext | None = None, *, status: int = 200) -> None:
    """By a new connection, with this status."""
    async with asyncio.timeout(WORKERS_FOLLOW):
        while await _status(port, tls) != status:
            pass


async def until_refused(port: int, tls: SSLContext | None = None) -> None:
    """A new connection is, and from then on every one."""
    async with asyncio.timeout(WORKERS_FOLLOW):
        while await _status(port, tls) is not None:
            pass
    assert await _status(port, tls) is None


async def _status(port: int, tls: SSLContext | None) -> int | None:
    """None where a new connection is refused."""
    try:
        return (await call_once(port, tls)).status
    except REFUSED:
        return None


@asynccontextmanager
async def application(status: int = 200, port: int = 0) -> AsyncIterator[int]:
    """A small HTTP application; gives its port, which is any that is free for 0."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: 2\r\n\r\nok" % status)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, LOCALHOST, port)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@dataclass(frozen=True)
class Envoy:
    """A running Envoy with one inbound port, and one upstream port that leads to its own inbound port."""

    process: asyncio.subprocess.Process
    description: Bootstrap
    log: Path

    @property
    def inbound(self) -> int:
        return self.description.service.inbound[0].listen.port

    @property
    def outbound(self) -> int:
        return self.description.service.upstreams[0].listen.port

    async def admin(self, path: str) -> tuple[int, bytes]:
        return await asyncio.to_thread(_get_over_unix, self.description.admin_socket, path)

    async def stat(self, name: str) -> int:
        return sum((await stats(self.description.admin_socket, f"^{name}$")).values())

    async def until_ready(self) -> None:
        """Ready, and its workers have had time to take up what the main thread acknowledged: nothing shows that."""
        await self._until_state({200}, "it never became ready")
        await asyncio.sleep(WORKERS_SETTLE)

    async def until_answering(self) -> None:
        """Its admin answers, ready or not."""
        await self._until_state({200, 503}, "its admin never answered")

    async def _until_state(self, codes: set[int], complaint: str) -> None:
        async def reached() -> bool:
            try:
                return (await self.admin("/ready"))[0] in codes
            except OSError:
                return False

        await self._poll(reached, complaint)

    async def until_logged(self, found: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """The first access log entry that satisfies `found`."""
        entries: list[dict[str, object]] = []

        async def logged() -> bool:
            log = self.description.service.access_log
            lines = log.read_text().splitlines() if log.exists() else []
            entries[:] = [entry for entry in map(json.loads, lines) if found(entry)]
            return bool(entries)

        await self._poll(logged, "nothing of the kind was logged")
        return entries[0]

    async def _poll(self, condition: Callable[[], Awaitable[bool]], complaint: str) -> None:
        """Envoy has no event to wait for here, so it is asked again and again."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not await condition():
                    if self.process.returncode is not None:
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        except TimeoutError:
            pass
        raise AssertionError(f"Envoy: {complaint}\n{self.log.read_text()[-4000:]}")


async def stats(admin: Path, pattern: str) -> dict[str, int]:
    """The counters and gauges of an Envoy whose names match a regular expression."""
    _, body = await asyncio.to_thread(_get_over_unix, admin, f"/stats?format=json&filter={pattern}")
    return {each["name"]: int(each["value"]) for each in json.loads(body)["stats"] if "value" in each}


def _get_over_unix(path: Path, target: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("admin", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(os.fspath(path))
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def describe(
    folder: Path,
    app: int,
    *,
    connection_per_request: bool = False,
    deny_reason: str = "no-fresh-attestation",
    protocol: Application = "http",
    before_first: Literal["silent", "refuse"] = "silent",
) -> Bootstrap:
    """One port in, and one out which leads back to it."""
    inbound = HostPort(LOCALHOST, free_port())
    outbound = HostPort(LOCALHOST, free_port())
    return Bootstrap(
        node_id="test",
        node_cluster="test",
        xds_socket=folder / "xds.sock",
        admin_socket=folder / "admin.sock",
        service=Service(
            access_log=folder / "access.log",
            inbound=(Inbound(inbound, HostPort(LOCALHOST, app), protocol, WORKLOADS),),
            upstreams=(Upstream("peer", outbound, (inbound,), protocol, WORKLOADS, connection_per_request),),
            deny_reason=deny_reason,
        ),
        before_first=before_first,
    )


def _as_it_is(given: Any) -> Any:
    return given


@asynccontextmanager
async def envoy(
    description: Bootstrap,
    folder: Path,
    *,
    api_type: str = "DELTA_GRPC",
    delivered: bool = False,
    bootstrap: Callable[[str], str] = _as_it_is,
    command: Callable[[list[str]], list[str]] = _as_it_is,
) -> AsyncIterator[Envoy]:
    """delivered: it gets its listeners and clusters from the server, too. bootstrap, command: other than ours."""
    config, log = folder / "envoy.json", folder / "envoy.log"
    everything = delivered_bootstrap("test", "test", description.xds_socket, description.admin_socket)
    write_bootstrap(everything if delivered else envoy_bootstrap(description), config)
    config.write_text(bootstrap(config.read_text().replace("DELTA_GRPC", api_type)))
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *command(envoy_command(ENVOY, config, concurrency=1, log_level="info", extra=_FLUSH_SOON)),
            stdout=output,
            stderr=output,
        )
    try:
        yield Envoy(process, description, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
