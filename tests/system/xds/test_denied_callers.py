"""One instance of an identity that three share is denied as a caller; the other two go on."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.system.closing.clients import texts
from tests.system.xds.denying import (
    BY_FINGERPRINT,
    BY_SUBJECT,
    INSTANCES,
    LEAVES,
    MATCHED,
    Scene,
    played,
    subject,
)
from tests.system.xds.rig import (
    LOCALHOST,
    PATIENCE,
    REFUSED,
    WORKERS_FOLLOW,
    Caller,
    call_once,
    until,
    until_refused,
)
from xds.callers import Callers
from xds.resources.denials import DeniedPeer
from xds.resources.service import HostPort

PASSED = 502
"""Of a request that the filters let pass to an application which speaks no HTTP/2."""
by_either_sign = pytest.mark.parametrize("denied", [BY_FINGERPRINT, BY_SUBJECT], ids=["by fingerprint", "by subject"])


async def statuses(at: Scene) -> list[int]:
    """Of a new connection of each caller."""
    return [(await call_once(at.proxy.inbound, context)).status for context in at.contexts]


async def sisters_are_served(at: Scene) -> None:
    for context in at.contexts[1:]:
        assert (await call_once(at.proxy.inbound, context)).status == 200


@by_either_sign
def test_a_denied_caller_gets_the_cause_on_its_open_connection_and_its_sisters_are_served(
    denied: DeniedPeer, tmp_path: Path
) -> None:
    async def story(at: Scene) -> None:
        callers = [await Caller.connect(at.proxy.inbound, context) for context in at.contexts]
        for caller in callers:
            assert (await caller.get()).status == 200
        await at.deny(denied)
        answer = await callers[0].until_answer(lambda answer: answer.status == 403)
        assert json.loads(answer.body)["detail"] == MATCHED
        assert [(await caller.get()).status for caller in callers[1:]] == [200, 200]
        assert await statuses(at) == [403, 200, 200]
        entry = await at.proxy.until_logged(lambda entry: entry["details"] == MATCHED)
        assert entry["peer_fingerprint"] == LEAVES[0].fingerprint
        assert entry["peer_subject"] == subject(INSTANCES[0])
        await at.deny()
        await callers[0].until_status(200)

    played(tmp_path, story)


@by_either_sign
def test_a_denied_callers_new_tcp_connection_is_closed_and_logged(denied: DeniedPeer, tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        assert await statuses(at) == [200, 200, 200]
        await at.deny(denied)
        await until_refused(at.proxy.inbound, at.contexts[0])
        await sisters_are_served(at)
        entry = await at.proxy.until_logged(lambda entry: entry["termination"] == MATCHED)
        assert entry["peer_fingerprint"] == LEAVES[0].fingerprint

    played(tmp_path, story, "tcp")


def test_a_denied_caller_is_refused_on_its_open_http2_connection(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        denied, sister = [await Http2Caller.connect(at.proxy.inbound, context) for context in at.contexts[:2]]
        assert (await denied.status(), await sister.status()) == (PASSED, PASSED)
        await at.deny(BY_FINGERPRINT)
        await denied.until_status(403)
        assert await sister.status() == PASSED

    played(tmp_path, story)


class Http2Caller:
    """An HTTP/2 client that keeps its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._state.initiate_connection()

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext) -> Http2Caller:
        tls.set_alpn_protocols(["h2"])
        return cls(*await asyncio.open_connection(LOCALHOST, port, ssl=tls))

    async def status(self) -> int:
        """Of one more request."""
        stream = self._state.get_next_available_stream_id()
        fields = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "test"}
        self._state.send_headers(stream, list(fields.items()), end_stream=True)
        async with asyncio.timeout(PATIENCE):
            while True:
                self._writer.write(self._state.data_to_send())
                data = await self._reader.read(65_536)
                if not data:
                    raise ConnectionResetError
                for event in self._state.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                        return int(texts(event.headers)[":status"])

    async def until_status(self, wanted: int) -> None:
        async with asyncio.timeout(WORKERS_FOLLOW):
            while await self.status() != wanted:
                pass


def test_the_server_knows_which_tcp_connections_are_whose_from_their_handshakes_to_their_ends(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        present = at.server.callers
        callers = [await Caller.connect(at.proxy.inbound, context) for context in at.contexts]
        for caller, instance in zip(callers, INSTANCES, strict=True):
            assert (await caller.get()).status == 200
            await until_named(present, instance, HostPort(LOCALHOST, caller.port))
        await callers[0].close()
        await until_named(present, INSTANCES[0])
        assert len(present) == len(callers) - 1

    played(tmp_path, story, "tcp")


async def until_named(present: Callers, instance: str, *where: HostPort) -> None:
    """These, and no other, are an instance's."""
    await until(lambda: present.named({subject(instance)}) == where)


def test_from_one_end_two_ports_are_called_and_each_connection_is_known_until_its_own_end(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        present = at.server.callers
        ports = tuple(each.listen.port for each in at.service.inbound)
        first, second = await from_one_end(ports, at.contexts)
        assert [(await caller.get()).status for caller in (first, second)] == [200, 200]
        where = HostPort(LOCALHOST, first.port)
        for instance in INSTANCES[:2]:
            await until_named(present, instance, where)
        await second.close()
        await until(lambda: len(present) == 1)
        assert present.named({subject(INSTANCES[0])}) == (where,)

    played(tmp_path, story, "tcp", ports=2)


async def from_one_end(ports: tuple[int, ...], contexts: tuple[ssl.SSLContext, ...]) -> list[Caller]:
    """A caller of each port, all from one port of ours, each with its own certificate."""
    callers: list[Caller] = []
    for port, context in zip(ports, contexts, strict=False):
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind((LOCALHOST, callers[0].port if callers else 0))
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_connect(ours, (LOCALHOST, port))
        callers.append(Caller(*await asyncio.open_connection(sock=ours, ssl=context, server_hostname="")))
    return callers


def test_a_revoked_caller_shakes_no_hands_any_more_and_the_listener_says_whose_they_were(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        assert (await call_once(at.proxy.inbound, at.contexts[0])).status == 200
        await at.deny(revoked=LEAVES[:1])
        await until_refused(at.proxy.inbound, at.contexts[0])
        await sisters_are_served(at)
        entry = await at.proxy.until_logged(lambda entry: "revoked" in str(entry["downstream_failure"]))
        assert entry["peer_fingerprint"] == LEAVES[0].fingerprint

    played(tmp_path, story)


def test_a_revoked_caller_hears_nothing_of_an_application_that_speaks_first(tmp_path: Path) -> None:
    """Envoy asks its network filters at the caller's first byte, which is too late there: the handshake must fail."""

    async def story(at: Scene) -> None:
        assert await greeting(at.proxy.inbound, at.contexts[0]) == b"welcome"
        await at.deny(BY_FINGERPRINT, revoked=LEAVES[:1])
        async with asyncio.timeout(WORKERS_FOLLOW):
            with pytest.raises(REFUSED):
                while await greeting(at.proxy.inbound, at.contexts[0]):
                    pass
        assert await greeting(at.proxy.inbound, at.contexts[1]) == b"welcome"

    played(tmp_path, story, "tcp", app=greeter)


@asynccontextmanager
async def greeter() -> AsyncIterator[int]:
    """A TCP application that speaks first; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, LOCALHOST, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def greeting(port: int, context: ssl.SSLContext) -> bytes:
    """Raises as soon as the other end refuses."""
    reader, writer = await asyncio.open_connection(LOCALHOST, port, ssl=context)
    try:
        return await reader.readexactly(len(b"welcome"))
    finally:
        writer.close()
