"""One HTTP/2 connection that carries gRPC streams: bytes in, bytes out, no I/O (RFC 9113).

Responses are pulled, never queued: a stream is asked for its next message only when the last one has left. So a
client that reads slowly gets the newest state when it catches up, and costs at most one message a stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from xds.errors import GrpcStatus, StreamError
from xds.framing import RESPONSE_HEADERS, Headers, MessageReader, trailers

MAX_CONCURRENT_STREAMS: Final = 4096
_CONNECTION_WINDOW: Final = 16 * 1024 * 1024


class MessageStream(Protocol):
    """What a service does with one gRPC stream."""

    def receive(self, message: bytes) -> None:
        """Take a request message. Raises StreamError to end the stream."""

    def next_message(self) -> bytes | None:
        """All there is to say now, as framed messages, or None. May raise StreamError."""

    def heartbeat(self) -> bytes:
        """Framed messages that prolong what was said before; empty when there is nothing to prolong."""

    def ended(self) -> None:
        """The stream is over, whoever ended it."""


class Service(Protocol):
    """Opens streams."""

    def open(self, path: str, stream_id: int) -> MessageStream:
        """Start a stream of the method at `path`. Raises StreamError (UNIMPLEMENTED) when there is none."""


@dataclass(slots=True)
class _Stream:
    id: int
    messages: MessageStream
    reader: MessageReader = field(default_factory=MessageReader)
    rest: bytes = b""


class Http2Connection:
    """The server's side of a connection. After any call, `outgoing` holds what must be written."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_CONCURRENT_STREAMS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 64 * 1024,
                h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 0,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW)
        self._streams: dict[int, _Stream] = {}
        self._blocked: dict[int, _Stream] = {}
        self._window_opened = False
        self._ended = False

    @property
    def ended(self) -> bool:
        """Nothing more can be exchanged: close the transport once `outgoing` is written."""
        return self._ended

    @property
    def streams(self) -> int:
        """Open streams."""
        return len(self._streams)

    def outgoing(self) -> bytes:
        """Take the bytes to be written now."""
        return self._h2.data_to_send()

    def receive(self, data: bytes) -> None:
        """Take bytes from the client and answer them. Broken HTTP/2 ends the connection with GOAWAY."""
        try:
            events = self._h2.receive_data(data)
            for event in events:
                self._take(event)
            if self._window_opened:
                self._window_opened = False
                self._pump_each(tuple(self._blocked.values()))
        except h2.exceptions.ProtocolError:
            self._end_streams()

    def pump_all(self) -> None:
        """Ask every stream for what it has to say, as far as flow control lets it out."""
        try:
            self._pump_each(tuple(self._streams.values()))
        except h2.exceptions.ProtocolError:
            self._end_streams()

    def heartbeat(self) -> int:
        """Write a heartbeat on every stream that is free to take one now; returns their number.

        A stream with something still to write is not asked, so no heartbeat is sent late.
        """
        return sum(self._heartbeat(stream) for stream in tuple(self._streams.values()))

    def _heartbeat(self, stream: _Stream) -> bool:
        if stream.rest or not self._open(stream.id) or self._room(stream) <= 0:
            return False
        stream.rest = stream.messages.heartbeat()
        if not stream.rest:
            return False
        self._write(stream)
        return True

    def close(self, message: str) -> None:
        """End every stream with UNAVAILABLE and the connection with GOAWAY."""
        for stream in tuple(self._streams.values()):
            self._finish(stream, trailers(GrpcStatus.UNAVAILABLE, message))
        if not self._ended:
            self._h2.close_connection()
            self._ended = True

    def lost(self) -> None:
        """The transport is gone."""
        self._end_streams()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._data(event)
            case h2.events.RequestReceived():
                self._request(event)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window_opened = True
            case h2.events.StreamEnded():
                self._half_closed(event)
            case h2.events.StreamReset():
                self._forget(event.stream_id)
            case h2.events.ConnectionTerminated():
                self._end_streams()

    def _request(self, event: h2.events.RequestReceived) -> None:
        if not self._open(event.stream_id):
            return
        headers = dict(event.headers)
        if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            self._h2.send_headers(event.stream_id, ((b":status", b"415"),), end_stream=True)
            self._stop_reading(event.stream_id)
            return
        path = headers.get(b":path", b"").decode("ascii", "replace")
        try:
            messages = self._service.open(path, event.stream_id)
        except StreamError as refused:
            refusal = RESPONSE_HEADERS + trailers(refused.status, str(refused))
            self._h2.send_headers(event.stream_id, refusal, end_stream=True)
            self._stop_reading(event.stream_id)
            return
        self._streams[event.stream_id] = _Stream(event.stream_id, messages)
        self._h2.send_headers(event.stream_id, RESPONSE_HEADERS)

    def _data(self, event: h2.events.DataReceived) -> None:
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        try:
            for message in stream.reader.feed(event.data):
                stream.messages.receive(message)
        except StreamError as broken:
            self._finish(stream, trailers(broken.status, str(broken)))
            return
        self._pump(stream)

    def _half_closed(self, event: h2.events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        try:
            stream.reader.finish()
            end = trailers(0, "")
        except StreamError as broken:
            end = trailers(broken.status, str(broken))
        self._finish(stream, end)

    def _pump_each(self, streams: Iterable[_Stream]) -> None:
        for stream in streams:
            self._pump(stream)

    def _pump(self, stream: _Stream) -> None:
        """Finish what the stream began to write, then write what it has to say now."""
        if not self._open(stream.id) or (stream.rest and not self._write(stream)):
            return
        try:
            stream.rest = stream.messages.next_message() or b""
        except StreamError as broken:
            self._finish(stream, trailers(broken.status, str(broken)))
            return
        if stream.rest:
            self._write(stream)

    def _write(self, stream: _Stream) -> bool:
        """Write what the windows allow of a stream's rest; whether nothing is left of it."""
        while stream.rest:
            room = self._room(stream)
            if room <= 0:
                self._blocked[stream.id] = stream
                return False
            part, stream.rest = stream.rest[:room], stream.rest[room:]
            self._h2.send_data(stream.id, part)
        self._blocked.pop(stream.id, None)
        return True

    def _room(self, stream: _Stream) -> int:
        return min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size)

    def _open(self, stream_id: int) -> bool:
        """Whether the stream may still be written to: a reset is known to h2 before its event reaches us."""
        state = self._h2.streams.get(stream_id)
        return state is not None and not state.closed and not self._ended

    def _finish(self, stream: _Stream, end: Headers) -> None:
        if self._open(stream.id):
            self._h2.send_headers(stream.id, end, end_stream=True)
        self._stop_reading(stream.id)
        self._forget(stream.id)

    def _stop_reading(self, stream_id: int) -> None:
        """RFC 9113 section 8.1: after a complete response, NO_ERROR asks the client to stop sending."""
        if self._open(stream_id):
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)

    def _forget(self, stream_id: int | None) -> None:
        if stream_id is None:
            return
        self._blocked.pop(stream_id, None)
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.messages.ended()

    def _end_streams(self) -> None:
        self._ended = True
        for stream_id in tuple(self._streams):
            self._forget(stream_id)
