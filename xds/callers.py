"""Who is connected to Envoy's TCP ports, by Envoy's own word: it tells of each connection as it begins and ends.

Nothing else knows which of its connections are whose: the kernel sees addresses, and only Envoy the certificates
(envoy.service.accesslog.v3, over the same socket as everything else).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf.message import DecodeError

from xds.descriptors import Field, Schema, build
from xds.errors import GrpcStatus, StreamError
from xds.resources.service import HostPort

PATH: Final = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
MOST_CALLERS: Final = 65_536
"""Connections remembered; the oldest are forgotten first."""

_LOG: Final = "envoy.data.accesslog.v3."
_SERVICE: Final = "envoy.service.accesslog.v3."
_CORE: Final = "envoy.config.core.v3."
_CONNECTED, _ENDED = 1, 3
"""Of envoy.data.accesslog.v3.AccessLogType."""

_SCHEMA: Final = Schema(
    enums={},
    messages={
        _CORE + "SocketAddress": (Field(2, "address", "string"), Field(3, "port_value", "uint32")),
        _CORE + "Address": (Field(1, "socket_address", _CORE + "SocketAddress"),),
        _LOG + "TLSPropertiesCertificateProperties": (Field(2, "subject", "string"),),
        _LOG + "TLSProperties": (Field(5, "peer_certificate_properties", _LOG + "TLSPropertiesCertificateProperties"),),
        _LOG + "AccessLogCommon": (
            Field(2, "downstream_remote_address", _CORE + "Address"),
            Field(3, "downstream_local_address", _CORE + "Address"),
            Field(4, "tls_properties", _LOG + "TLSProperties"),
            Field(33, "access_log_type", "uint32"),
        ),
        _LOG + "TCPAccessLogEntry": (Field(1, "common_properties", _LOG + "AccessLogCommon"),),
        _SERVICE + "StreamAccessLogsMessageTCPAccessLogEntries": (
            Field(1, "log_entry", _LOG + "TCPAccessLogEntry", repeated=True),
        ),
        _SERVICE + "StreamAccessLogsMessage": (
            Field(3, "tcp_logs", _SERVICE + "StreamAccessLogsMessageTCPAccessLogEntries"),
        ),
    },
)


def _nobody_asks(subject: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Call:
    """A connection by its ends, the caller's and ours: from one of theirs a caller may call several of ours."""

    caller: HostPort
    called: HostPort


class Callers:
    """The connections that are open, each with the subject of the certificate that was shown.

    on_connected: called with the subject of each that begins, after it is known here.
    """

    def __init__(self) -> None:
        self._present: dict[Call, str] = {}
        self.on_connected: Callable[[str], None] = _nobody_asks

    def __len__(self) -> int:
        return len(self._present)

    def connected(self, call: Call, subject: str) -> None:
        """It begins."""
        self._present.pop(call, None)
        self._present[call] = subject
        if len(self._present) > MOST_CALLERS:
            del self._present[next(iter(self._present))]
        self.on_connected(subject)

    def ended(self, call: Call) -> None:
        self._present.pop(call, None)

    def forget(self) -> None:
        """Of an Envoy that has ended."""
        self._present.clear()

    def named(self, subjects: Collection[str]) -> tuple[HostPort, ...]:
        """The callers' ends of what is open to certificates of these subjects, each once."""
        found = (call.caller for call, subject in self._present.items() if subject in subjects)
        return tuple(dict.fromkeys(found))


class CallerStream:
    """One stream of Envoy's word. Nothing is ever said to it."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def receive(self, message: bytes) -> None:
        """Raises StreamError(INTERNAL) on malformed bytes."""
        try:
            told = message_class().FromString(message)
        except DecodeError as malformed:
            raise StreamError(GrpcStatus.INTERNAL, f"{len(message)} bytes are no access log") from malformed
        for entry in told.tcp_logs.log_entry:
            self._heard(entry.common_properties)

    def next_message(self) -> bytes | None:
        return None

    def heartbeat(self) -> bytes:
        return b""

    def ended(self) -> None:
        """What it told of may go on: Envoy opens another stream for what comes."""

    def _heard(self, said: Any) -> None:
        call = Call(_end(said.downstream_remote_address), _end(said.downstream_local_address))
        if said.access_log_type == _CONNECTED:
            self._callers.connected(call, said.tls_properties.peer_certificate_properties.subject)
        elif said.access_log_type == _ENDED:
            self._callers.ended(call)


def _end(address: Any) -> HostPort:
    where = address.socket_address
    return HostPort(where.address, where.port_value)


@cache
def message_class() -> type[Any]:
    """StreamAccessLogsMessage with what is read of it, made at the first use."""
    return build(_SCHEMA)[_SERVICE + "StreamAccessLogsMessage"]
