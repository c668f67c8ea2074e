"""The load where the Go peer is not built: streams that acknowledge every secret, in Python.

Usage: python -m proofbeat.bench.push.load SOCKET STREAMS CONNECTIONS. It costs about as much of a core as the server
does, so rotations are slower with it than with the peer's load; what a push costs the server is the same.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

import h2.config
import h2.connection
import h2.events
import h2.settings

from proofbeat.bench.push.server import SECRET
from xds.framing import MessageReader, frame
from xds.messages import encode_discovery, message_classes
from xds.resources.secrets import SECRET_TYPE

_RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"
_WINDOW = 2**31 - 1
_FIRST_WINDOW = 65_535  # RFC 9113 section 6.9.2
_HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"),
    (":authority", "bench"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


class Acknowledging(asyncio.Protocol):
    """One connection with so many streams. lost: resolved when the server hangs up."""

    def __init__(self, streams: int, lost: asyncio.Future[None]) -> None:
        self._lost = lost
        self._response = message_classes()[_RESPONSE]
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        # Windows that outlast any run, so that no update costs anything.
        self._h2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW}
        )
        self._streams = streams
        self._readers: dict[int, MessageReader] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"{transport!r} is no stream")
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW - _FIRST_WINDOW)
        subscription = encode_discovery(
            "DeltaDiscoveryRequest", type_url=SECRET_TYPE, resource_names_subscribe=[SECRET]
        )
        for _ in range(self._streams):
            stream = self._h2.get_next_available_stream_id()
            self._readers[stream] = MessageReader()
            self._h2.send_headers(stream, _HEADERS)
            self._h2.send_data(stream, frame(subscription))
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                for message in self._readers[event.stream_id].feed(event.data):
                    self._acknowledge(event.stream_id, message)
        self._transport.write(self._h2.data_to_send())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result(None)

    def _acknowledge(self, stream: int, message: bytes) -> None:
        nonce = self._response.FromString(message).nonce
        request = encode_discovery("DeltaDiscoveryRequest", type_url=SECRET_TYPE, response_nonce=nonce)
        self._h2.send_data(stream, frame(request))


async def _main(socket: str, streams: int, connections: int) -> None:
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[None] = loop.create_future()
    for number in range(connections):
        share = len(range(number, streams, connections))
        await loop.create_unix_connection(partial(Acknowledging, share, lost), socket)
    await lost


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
