"""What an Envoy may say: to xds/ at the key socket, from single requests to whole HTTP/2 connections, and to sidecar/
at its own admin socket."""

from __future__ import annotations

import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import h2.config
import h2.connection
import h2.settings

from attestation.errors import InvalidInput
from sidecar import serving
from tests.fuzz.target import Target
from xds import callers
from xds.admission import Admission
from xds.callers import Callers, CallerStream
from xds.errors import StreamError
from xds.framing import MAX_MESSAGE_BYTES, MessageReader, frame
from xds.http2 import Http2Connection, MessageStream
from xds.listening import Endpoint
from xds.messages import SECRET, TYPE_PREFIX, decode_delta, decode_sotw, encode_discovery
from xds.server import Server
from xds.services import METHODS, Discovery, method
from xds.snapshot import Resource, Snapshot

_SECRETS = TYPE_PREFIX + SECRET
_AGGREGATED = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_OPEN = Snapshot.of(Resource.of(_SECRETS, "default", b"key"), Resource.of(_SECRETS, "ROOTCA", b"roots", ttl=5.0))
_CLOSED = Snapshot.of(Resource.of(_SECRETS, "default", b"poison"), Resource.of(_SECRETS, "ROOTCA", b"none", ttl=5.0))
_CONNECTION = 1
SUBJECT = "OU=i-0123,O=Proofbeat"


def discovery_request(data: bytes) -> None:
    """A request is refused with a gRPC status, or answered; a second one of the same stream likewise."""
    for decode in (decode_sotw, decode_delta):
        with suppress(StreamError):
            decode(data)
    for path in METHODS:
        stream = Discovery(method(path))
        with suppress(StreamError):
            stream.receive(data)
            stream.receive(data)


def grpc_frames(data: bytes) -> None:
    """Cut anywhere, the same messages come out, and nothing is held that will not be accepted."""
    whole, split = MessageReader(), MessageReader()
    cut = len(data) // 3
    with suppress(StreamError):
        messages = whole.feed(data)
        assert split.feed(data[:cut]) + split.feed(data[cut:]) == messages
        assert b"".join(map(frame, messages)) == data[: sum(len(each) + 5 for each in messages)]
        whole.finish()
        assert all(len(each) <= MAX_MESSAGE_BYTES for each in messages)


def access_log(data: bytes) -> None:
    """Told once or twice, it is the same; what is remembered is named by its subject."""
    once, twice = Callers(), Callers()
    with suppress(StreamError):
        CallerStream(once).receive(data)
        CallerStream(twice).receive(data + data)
    for present in (once, twice):
        assert len(present.named({SUBJECT})) <= len(present)
    assert len(once) == len(twice)


def certificates(data: bytes) -> None:
    """A list of certificates, in an HTTP response or bare: serial numbers that a certificate can have, or a refusal."""
    with suppress(HTTPException, InvalidInput):
        serving.content(data)
    with suppress(InvalidInput):
        assert all(0 < each < 1 << 160 for each in serving.named(data))


def _told(kind: int) -> bytes:
    entry = {
        "downstream_remote_address": {"socket_address": {"address": "192.0.2.7", "port_value": 40_001}},
        "downstream_local_address": {"socket_address": {"address": "192.0.2.1", "port_value": 9443}},
        "tls_properties": {"peer_certificate_properties": {"subject": SUBJECT}},
        "access_log_type": kind,
    }
    told = callers.message_class()(tcp_logs={"log_entry": [{"common_properties": entry}]})
    encoded: bytes = told.SerializeToString()
    return encoded


class _Seat:
    """Opens the server's streams for one connection."""

    def __init__(self) -> None:
        self.server = Server(Endpoint(Path("unused")), Admission(frozenset({os.getuid()})), clock=lambda: 42.0)
        self.http2 = Http2Connection(self)

    def open(self, path: str, stream_id: int) -> MessageStream:
        return self.server.open(path, _CONNECTION, stream_id)


def http2_connection(data: bytes) -> None:
    """Any bytes, cut anywhere: no exception reaches the transport, a closing is still published to whoever listens,
    and a connection that is lost leaves no stream behind."""
    seat = _Seat()
    seat.server.publish(_OPEN)
    cut = data[-1] * len(data) // 256 if data else 0
    for part in (data[:cut], data[cut:]):
        seat.server.turn()
        seat.http2.receive(part)
        seat.http2.outgoing()
    seat.server.publish(_CLOSED)
    seat.http2.pump_all()
    seat.http2.heartbeat()
    seat.http2.outgoing()
    assert seat.server.streams == seat.http2.streams
    seat.http2.lost()
    assert seat.server.streams == 0


def _delta(nonce: str = "", **fields: object) -> bytes:
    return encode_discovery("DeltaDiscoveryRequest", type_url=_SECRETS, response_nonce=nonce, **fields)


def _sotw() -> bytes:
    return encode_discovery("DiscoveryRequest", type_url=_SECRETS, resource_names=["default"], node=b"\x0a\x01n")


def _conversation(*paths: str, window: int = 65_535) -> bytes:
    """What a well-behaved client sends to open a stream of each method, ask, acknowledge and reject."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    client.initiate_connection()
    for path in paths:
        stream = client.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": path, "te": "trailers"}
        client.send_headers(stream, [*headers.items(), ("content-type", "application/grpc")])
        request = _sotw() if "/Stream" in path else _delta(resource_names_subscribe=["default", "*"])
        client.send_data(stream, frame(request))
        client.send_data(stream, frame(_delta("1.0")), end_stream=path is paths[-1])
    client.ping(b"12345678")
    return client.data_to_send()


TARGETS = (
    Target(
        "discovery",
        discovery_request,
        lambda: (
            _sotw(),
            _delta(resource_names_subscribe=["default"], initial_resource_versions={"default": "v1"}),
            _delta("1.0", error_detail={"code": 13, "message": "no"}, resource_names_unsubscribe=["*"]),
        ),
        (_SECRETS.encode(), b"*", b"1.0"),
    ),
    Target("access-log", access_log, lambda: (_told(1), _told(1) + _told(3), _told(2)), (SUBJECT.encode(),)),
    Target(
        "certificates",
        certificates,
        lambda: (
            b'{"certificates":[{"ca_cert":[],"cert_chain":[{"serial_number":"7f","subject_alt_names":[{"uri":"a"}]}]}]}',
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ),
        (b'"serial_number":', b'"cert_chain":', b'{"uri":', b"content-length: -1\r\n", b"ffffffff\r\n"),
    ),
    Target("grpc", grpc_frames, lambda: (frame(_sotw()) + frame(b"") + frame(b"x")[:3],)),
    Target(
        "http2",
        http2_connection,
        lambda: (
            _conversation(_AGGREGATED),
            _conversation(*METHODS),
            _conversation("/no/Such", _AGGREGATED, window=3),
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            bytes(9),
            b"\0\0\4\3\0\0\0\0\1\0\0\0\0",  # RST_STREAM
            b"\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff",  # WINDOW_UPDATE
            b"\0\0\6\4\0\0\0\0\0\0\4\xff\xff\xff\xff",  # SETTINGS: a window too large
            b"\0\0\0\4\1\0\0\0\0",  # SETTINGS, acknowledged
            b"\0\0\5\2\0\0\0\0\1\0\0\0\1\0",  # PRIORITY of itself
        ),
    ),
)
