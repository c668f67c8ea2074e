"""A discovery client that shares nothing with us: gRPC's own C core, and another project's messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import grpc
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from envoy_data_plane.google.rpc import Status

PATIENCE = 15.0
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"


@contextmanager
def connected(path: Path) -> Iterator[Core]:
    """A connection of the C core to the socket; every call on it ends with it."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        yield Core(channel)


class Core:
    """Opens calls on one connection."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def sotw(self, path: str) -> SotwCall:
        """A state-of-the-world call of the method at `path`."""
        return SotwCall(self._channel, path)

    def delta(self, path: str) -> DeltaCall:
        """An incremental call of the method at `path`."""
        return DeltaCall(self._channel, path)

    async def sent(
        self, path: str, *messages: bytes, compression: grpc.Compression = grpc.Compression.NoCompression
    ) -> tuple[grpc.StatusCode, str]:
        """How a call ends in which these bytes are all that is sent."""
        call = self._channel.stream_stream(path)(iter(messages), timeout=PATIENCE, compression=compression)
        return await asyncio.to_thread(call.code), await asyncio.to_thread(call.details)


class _Call:
    """One stream. Its first message alone carries the node."""

    response: type[DiscoveryResponse] | type[DeltaDiscoveryResponse]

    def __init__(self, channel: grpc.Channel, path: str) -> None:
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        self._node: Node | None = Node(id="conformance", cluster="test")
        stream = channel.stream_stream(path, response_deserializer=self.response.parse)
        self._call = stream(iter(self._requests.get, None), timeout=PATIENCE)

    def _send(self, request: DiscoveryRequest | DeltaDiscoveryRequest) -> None:
        request.node, self._node = self._node, None
        self._requests.put(bytes(request))

    def finish(self) -> None:
        """Say nothing more, as a client that closes its half."""
        self._requests.put(None)

    def cancel(self) -> None:
        """Break off."""
        self._call.cancel()
        self._requests.put(None)

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the call ended, once it has."""
        return await asyncio.to_thread(self._call.code), await asyncio.to_thread(self._call.details)


class SotwCall(_Call):
    response = DiscoveryResponse

    def ask(self, type_url: str, *names: str, after: DiscoveryResponse | None = None, version: str = "") -> None:
        """Want exactly `names`; `after` is the last response, accepted already."""
        if after is not None:
            version = after.version_info
        nonce = "" if after is None else after.nonce
        self._send(
            DiscoveryRequest(type_url=type_url, resource_names=list(names), version_info=version, response_nonce=nonce)
        )

    def reject(self, told: DiscoveryResponse, *names: str, version: str, reason: str) -> None:
        """Refuse a response and stay at `version`."""
        self._send(
            DiscoveryRequest(
                type_url=told.type_url,
                resource_names=list(names),
                version_info=version,
                response_nonce=told.nonce,
                error_detail=Status(code=3, message=reason),
            )
        )

    async def told(self) -> DiscoveryResponse:
        """The next response."""
        response = await asyncio.to_thread(next, self._call, None)
        assert isinstance(response, DiscoveryResponse), "the call ended"
        return response


class DeltaCall(_Call):
    response = DeltaDiscoveryResponse

    def ask(
        self, type_url: str, *names: str, without: tuple[str, ...] = (), holding: dict[str, str] | None = None
    ) -> None:
        """Subscribe to `names` and unsubscribe from `without`; `holding` are versions kept from an earlier call."""
        self._send(
            DeltaDiscoveryRequest(
                type_url=type_url,
                resource_names_subscribe=list(names),
                resource_names_unsubscribe=list(without),
                initial_resource_versions=holding or {},
            )
        )

    def answer(self, told: DeltaDiscoveryResponse, reason: str | None = None) -> None:
        """Accept a response, or refuse it for a reason."""
        error = None if reason is None else Status(code=3, message=reason)
        self._send(DeltaDiscoveryRequest(type_url=told.type_url, response_nonce=told.nonce, error_detail=error))

    async def told(self) -> DeltaDiscoveryResponse:
        """The next response."""
        response = await asyncio.to_thread(next, self._call, None)
        assert isinstance(response, DeltaDiscoveryResponse), "the call ended"
        return response
