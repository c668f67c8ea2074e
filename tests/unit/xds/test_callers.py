"""Envoy's word on who is connected, as an independent implementation writes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.core.v3 import Address, SocketAddress
from envoy_data_plane.envoy.data.accesslog.v3 import (
    AccessLogCommon,
    AccessLogType,
    TcpAccessLogEntry,
    TlsProperties,
    TlsPropertiesCertificateProperties,
)
from envoy_data_plane.envoy.service.accesslog.v3 import (
    StreamAccessLogsMessage,
    StreamAccessLogsMessageTcpAccessLogEntries,
)

from tests.unit.xds.grpc_client import SocketClient
from tests.unit.xds.stage import Stage, play
from xds import callers
from xds.callers import PATH, Call, Callers, CallerStream
from xds.errors import GrpcStatus, StreamError
from xds.resources.service import HostPort

GOOD, BAD = "OU=i-good,O=Proofbeat", "OU=i-bad,O=Proofbeat"
HERE, THERE = HostPort("192.0.2.7", 40_001), HostPort("2001:db8::7", 40_002)
OURS, OTHER = HostPort("192.0.2.1", 9443), HostPort("192.0.2.1", 9444)
"""Ports at which we are called."""


def entry(caller: HostPort, kind: AccessLogType, subject: str = "", *, at: HostPort = OURS) -> TcpAccessLogEntry:
    shown = TlsPropertiesCertificateProperties(subject=subject)
    common = AccessLogCommon(
        downstream_remote_address=address(caller),
        downstream_local_address=address(at),
        tls_properties=TlsProperties(peer_certificate_properties=shown),
        access_log_type=kind,
    )
    return TcpAccessLogEntry(common_properties=common)


def said(*entries: TcpAccessLogEntry) -> bytes:
    return bytes(StreamAccessLogsMessage(tcp_logs=StreamAccessLogsMessageTcpAccessLogEntries(log_entry=list(entries))))


def address(where: HostPort) -> Address:
    return Address(socket_address=SocketAddress(address=where.host, port_value=where.port))


def began(caller: HostPort, subject: str, *, at: HostPort = OURS) -> TcpAccessLogEntry:
    return entry(caller, AccessLogType.TcpUpstreamConnected, subject, at=at)


def ended(caller: HostPort, *, at: HostPort = OURS) -> TcpAccessLogEntry:
    return entry(caller, AccessLogType.TcpConnectionEnd, at=at)


def test_a_caller_is_there_from_its_connection_to_its_end() -> None:
    present = Callers()
    stream = CallerStream(present)
    stream.receive(said(began(HERE, BAD), began(THERE, GOOD)))
    assert present.named({BAD}) == (HERE,)
    assert set(present.named({BAD, GOOD})) == {HERE, THERE}
    stream.receive(said(entry(HERE, AccessLogType.TcpPeriodic), ended(THERE)))
    assert present.named({BAD, GOOD}) == (HERE,)
    stream.receive(said(ended(HERE), ended(HERE)))
    assert len(present) == 0


def test_an_address_that_is_used_again_is_its_new_callers() -> None:
    present = Callers()
    CallerStream(present).receive(said(began(HERE, BAD), began(HERE, GOOD)))
    assert (present.named({BAD}), present.named({GOOD})) == ((), (HERE,))


def test_from_one_end_several_ports_are_called_and_each_connection_has_an_end_of_its_own() -> None:
    present = Callers()
    stream = CallerStream(present)
    stream.receive(said(began(HERE, BAD), began(HERE, GOOD, at=OTHER)))
    assert (present.named({BAD}), present.named({GOOD})) == ((HERE,), (HERE,))
    stream.receive(said(began(HERE, BAD, at=OTHER)))
    assert (present.named({BAD}), len(present)) == ((HERE,), 2)
    stream.receive(said(ended(HERE, at=OTHER)))
    assert (present.named({BAD}), len(present)) == ((HERE,), 1)


def test_whoever_connects_is_told_of_when_it_is_known() -> None:
    present, heard = Callers(), list[tuple[str, int]]()
    present.on_connected = lambda subject: heard.append((subject, len(present)))
    CallerStream(present).receive(said(began(HERE, BAD), ended(HERE)))
    assert heard == [(BAD, 1)]


def test_the_oldest_are_forgotten_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MOST_CALLERS", 2)
    present = Callers()
    for port in (1, 2, 3):
        present.connected(Call(HostPort("192.0.2.7", port), OURS), BAD)
    assert [each.port for each in present.named({BAD})] == [2, 3]


def test_malformed_bytes_end_the_stream_with_internal() -> None:
    with pytest.raises(StreamError) as raised:
        CallerStream(Callers()).receive(b"\xff\xff\xff")
    assert raised.value.status is GrpcStatus.INTERNAL


def test_the_server_hears_it_over_its_socket_and_says_nothing(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        connected = asyncio.Event()
        at.server.callers.on_connected = lambda _: connected.set()
        stream = client.grpc.open(PATH)
        client.grpc.send(stream, said(began(HERE, BAD)))
        client.flush()
        async with asyncio.timeout(5):
            await connected.wait()
        assert at.server.callers.named({BAD}) == (HERE,)
        assert at.server.streams == 0

    play(tmp_path, scene)
