"""The HTTP/2 side: statuses, flow control that keeps only the newest, and clients that misbehave."""

from __future__ import annotations

from dataclasses import dataclass, field

import h2.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.xds.grpc_client import GrpcClient
from xds.errors import GrpcStatus, StreamError
from xds.framing import frame
from xds.http2 import Http2Connection

BIG = 100_000
DATA_ON_STREAM_0 = bytes(9)  # RFC 9113 section 6.1: a connection error


@dataclass
class Echo:
    """A stream that says what it was last told to say, once."""

    to_say: bytes | None = None
    received: list[bytes] = field(default_factory=list)
    over: bool = False

    def receive(self, message: bytes) -> None:
        if message == b"break":
            raise StreamError(GrpcStatus.INVALID_ARGUMENT, "broken on request")
        self.received.append(message)
        self.to_say = message

    def next_message(self) -> bytes | None:
        said, self.to_say = self.to_say, None
        return None if said is None else frame(said)

    def heartbeat(self) -> bytes:
        return frame(b"beat")

    def ended(self) -> None:
        self.over = True


class EchoService:
    def __init__(self) -> None:
        self.streams: dict[int, Echo] = {}

    def open(self, path: str, stream_id: int) -> Echo:
        if path != "/echo":
            raise StreamError(GrpcStatus.UNIMPLEMENTED, f"no method {path}")
        return self.streams.setdefault(stream_id, Echo())


class Pair:
    """A client and a server joined without a network."""

    def __init__(self, window: int = 65_535, *, credit: bool = True) -> None:
        self.service = EchoService()
        self.server = Http2Connection(self.service)
        self.client = GrpcClient(window, credit=credit)
        self.exchange()

    def exchange(self) -> None:
        while True:
            down, up = self.server.outgoing(), self.client.outgoing()
            if not (down or up):
                return
            if down:
                self.client.receive(down)
            if up:
                self.server.receive(up)

    def say(self, message: bytes, stream_id: int | None = None) -> int:
        if stream_id is None:
            stream_id = self.client.open("/echo")
        self.client.send(stream_id, message)
        self.exchange()
        return stream_id


def test_a_message_is_answered() -> None:
    pair = Pair()
    stream = pair.client.streams[pair.say(b"hello")]
    assert stream.messages == [b"hello"]
    assert (stream.headers[":status"], stream.headers["content-type"]) == ("200", "application/grpc")


def test_an_unknown_method_is_unimplemented_and_the_connection_goes_on() -> None:
    pair = Pair()
    unknown = pair.client.open("/other")
    pair.exchange()
    assert pair.client.streams[unknown].ended
    assert pair.client.streams[unknown].status == GrpcStatus.UNIMPLEMENTED
    assert pair.client.streams[pair.say(b"hello")].messages == [b"hello"]


def test_what_is_not_grpc_is_answered_415() -> None:
    pair = Pair()
    stream = pair.client.open("/echo", content_type="text/plain")
    pair.exchange()
    assert pair.client.streams[stream].headers[":status"] == "415"


def test_a_broken_message_ends_its_stream_with_a_status_and_no_other() -> None:
    pair = Pair()
    good, bad = pair.say(b"hello"), pair.client.open("/echo")
    pair.say(b"break", bad)
    assert pair.client.streams[bad].status == GrpcStatus.INVALID_ARGUMENT
    assert pair.client.streams[bad].headers["grpc-message"] == "broken on request"
    assert pair.service.streams[bad].over
    pair.say(b"again", good)
    assert pair.client.streams[good].messages == [b"hello", b"again"]


def test_a_compressed_message_ends_its_stream() -> None:
    pair = Pair()
    stream = pair.client.open("/echo")
    pair.client.h2.send_data(stream, b"\1\0\0\0\1x")
    pair.exchange()
    assert pair.client.streams[stream].status == GrpcStatus.UNIMPLEMENTED


def test_a_client_that_closes_its_half_gets_status_ok() -> None:
    pair = Pair()
    stream = pair.say(b"hello")
    pair.client.h2.end_stream(stream)
    pair.exchange()
    assert pair.client.streams[stream].status == 0
    assert pair.service.streams[stream].over
    assert pair.server.streams == 0


def test_a_reset_stream_is_forgotten_even_when_its_data_comes_in_the_same_read() -> None:
    pair = Pair()
    other = pair.say(b"hello")
    stream = pair.client.open("/echo")
    pair.exchange()
    pair.client.send(stream, b"hello")
    pair.client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    pair.exchange()
    assert pair.service.streams[stream].over
    assert pair.server.streams == 1
    pair.say(b"again", other)
    assert pair.client.streams[other].messages == [b"hello", b"again"]


def test_more_than_a_hundred_streams_are_served() -> None:
    pair = Pair()
    streams = [pair.say(b"%d" % number) for number in range(300)]
    assert pair.server.streams == 300
    assert [pair.client.streams[s].messages for s in streams] == [[b"%d" % n] for n in range(300)]


def test_a_large_message_arrives_as_the_window_opens() -> None:
    pair = Pair(window=1000)
    message = bytes(BIG)
    stream = pair.client.open("/echo")
    pair.client.h2.increment_flow_control_window(1)
    for start in range(0, len(frame(message)), 10_000):
        pair.client.h2.send_data(stream, frame(message)[start : start + 10_000])
        pair.exchange()
    assert pair.client.streams[stream].messages == [message]


def test_behind_a_closed_window_only_the_newest_waits() -> None:
    pair = Pair(window=10, credit=False)
    stream = pair.say(b"begun before the window closed")
    echo = pair.service.streams[stream]
    for number in range(1000):
        echo.to_say = b"newest %d" % number
        pair.server.pump_all()
    pair.exchange()
    assert pair.client.streams[stream].messages == []
    pair.client.h2.increment_flow_control_window(1000, stream)
    pair.exchange()
    assert pair.client.streams[stream].messages == [b"begun before the window closed", b"newest 999"]


def test_a_heartbeat_is_not_kept_for_later_when_the_window_is_closed() -> None:
    pair = Pair(window=10, credit=False)
    stream = pair.say(b"more than ten bytes")
    assert pair.server.heartbeat() == 0
    pair.client.h2.increment_flow_control_window(1000, stream)
    pair.exchange()
    assert pair.client.streams[stream].messages == [b"more than ten bytes"]
    assert pair.server.heartbeat() == 1
    pair.exchange()
    assert pair.client.streams[stream].messages[-1] == b"beat"


def test_closing_ends_every_stream_with_unavailable() -> None:
    pair = Pair()
    streams = [pair.say(b"hello"), pair.say(b"hello")]
    pair.server.close("going down")
    pair.exchange()
    assert [pair.client.streams[s].status for s in streams] == [GrpcStatus.UNAVAILABLE] * 2
    assert pair.client.closed
    assert pair.server.ended


def test_broken_http2_ends_the_connection_and_its_streams() -> None:
    pair = Pair()
    stream = pair.say(b"hello")
    pair.server.receive(DATA_ON_STREAM_0)
    assert pair.server.ended
    assert pair.service.streams[stream].over
    pair.client.receive(pair.server.outgoing())
    assert pair.client.closed, "the client is told by GOAWAY"


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A well-formed frame header with anything behind it."""
    payload = draw(st.binary(max_size=40))
    kind, flags, stream = draw(st.integers(0, 11)), draw(st.integers(0, 255)), draw(st.integers(0, 5))
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(frames(), st.binary(max_size=60)), max_size=6))
def test_no_bytes_whatsoever_make_it_raise(garbage: list[bytes]) -> None:
    pair = Pair()
    pair.say(b"hello")
    for data in garbage:
        pair.server.receive(data)
        pair.server.pump_all()
        pair.server.heartbeat()
        pair.server.outgoing()
    pair.server.close("enough")
    pair.server.outgoing()


@pytest.mark.parametrize("flip", range(0, 60, 3))
def test_flipped_bits_in_a_request_never_make_it_raise(flip: int) -> None:
    pair = Pair()
    stream = pair.client.open("/echo")
    pair.client.send(stream, b"hello")
    data = bytearray(pair.client.outgoing())
    data[flip % len(data)] ^= 0xFF
    pair.server.receive(bytes(data))
    pair.server.pump_all()
    pair.server.outgoing()
