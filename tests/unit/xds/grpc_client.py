"""A gRPC client on bare h2, so that tests can hold back windows, cut messages and misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.news import News
from xds.framing import MessageReader, frame
from xds.messages import SECRET, encode_discovery, message_classes
from xds.snapshot import type_url

DELTA_SECRETS = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
STREAM_SECRETS = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
DELTA_AGGREGATED = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SECRETS = type_url(SECRET)


@dataclass(frozen=True)
class Told:
    """A response, as far as tests look at it."""

    type_url: str
    nonce: str
    names: tuple[str, ...]
    bodies: tuple[bytes, ...]
    removed: tuple[str, ...]


@dataclass
class Stream:
    messages: list[bytes] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    reader: MessageReader = field(default_factory=MessageReader)

    @property
    def status(self) -> int:
        return int(self.headers["grpc-status"])

    def told(self) -> list[Told]:
        """The incremental responses so far."""
        return [_told(message) for message in self.messages]


class GrpcClient:
    """Bytes out in `outgoing`, bytes in by `receive`."""

    def __init__(self, window: int = 65_535, *, credit: bool = True) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.h2.initiate_connection()
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self._credit = credit

    def outgoing(self) -> bytes:
        return self.h2.data_to_send()

    def open(self, path: str = DELTA_SECRETS, content_type: str = "application/grpc") -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream_id,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "xds"),
                ("content-type", content_type),
                ("te", "trailers"),
            ],
        )
        self.streams[stream_id] = Stream()
        return stream_id

    def send(self, stream_id: int, message: bytes) -> None:
        self.h2.send_data(stream_id, frame(message))

    def subscribe(self, stream_id: int, *names: str, type_url: str = SECRETS) -> None:
        self.send(
            stream_id,
            encode_discovery("DeltaDiscoveryRequest", type_url=type_url, resource_names_subscribe=names),
        )

    def answer(self, stream_id: int, told: Told, rejection: str | None = None) -> None:
        error = {} if rejection is None else {"error_detail": {"code": 13, "message": rejection}}
        self.send(
            stream_id,
            encode_discovery("DeltaDiscoveryRequest", type_url=told.type_url, response_nonce=told.nonce, **error),
        )

    def receive(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    self.streams[event.stream_id].headers.update(_decoded(event.headers))
                case h2.events.DataReceived():
                    stream = self.streams[event.stream_id]
                    stream.messages += stream.reader.feed(event.data)
                    if self._credit:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded() | h2.events.StreamReset():
                    self.streams[event.stream_id].ended = True
                case h2.events.ConnectionTerminated():
                    self.closed = True


class SocketClient(asyncio.Protocol):
    """The client on a Unix socket."""

    def __init__(self, window: int) -> None:
        self.grpc = GrpcClient(window)
        self.hung_up = False
        self._news = News()

    @classmethod
    async def connect(cls, path: Path, window: int = 65_535) -> SocketClient:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_unix_connection(lambda: cls(window), str(path))
        client.flush()
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.grpc.receive(data)
        self.flush()
        self._news.tell()

    def connection_lost(self, exc: Exception | None) -> None:
        self.hung_up = True
        self._news.tell()

    def flush(self) -> None:
        if data := self.grpc.outgoing():
            self.transport.write(data)

    async def until(self, happened: Callable[[], bool]) -> None:
        await self._news.until(happened, within=10.0)

    async def told(self, stream_id: int, count: int) -> Told:
        """The `count`-th response of a stream, once it is there."""
        stream = self.grpc.streams[stream_id]
        await self.until(lambda: len(stream.messages) >= count)
        return stream.told()[count - 1]

    def said(self, stream_id: int) -> list[Told]:
        """The responses of a stream so far."""
        return self.grpc.streams[stream_id].told()

    async def status(self, stream_id: int) -> int:
        """How a stream ended, once it has."""
        stream = self.grpc.streams[stream_id]
        await self.until(lambda: stream.ended)
        return stream.status

    async def subscribed(self, *names: str, path: str = DELTA_SECRETS) -> tuple[int, Told]:
        """A new stream and its first response."""
        stream_id = self.grpc.open(path)
        self.grpc.subscribe(stream_id, *names)
        self.flush()
        return stream_id, await self.told(stream_id, 1)

    def answer(self, stream_id: int, told: Told, rejection: str | None = None) -> None:
        self.grpc.answer(stream_id, told, rejection)
        self.flush()


def _decoded(headers: Iterable[Sequence[str | bytes]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


def _told(message: bytes) -> Told:
    parsed = message_classes()["envoy.service.discovery.v3.DeltaDiscoveryResponse"].FromString(message)
    return Told(
        parsed.type_url,
        parsed.nonce,
        tuple(r.name for r in parsed.resources),
        tuple(r.resource.value for r in parsed.resources),
        tuple(parsed.removed_resources),
    )
