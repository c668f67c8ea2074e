"""A discovery client that shares nothing with us: gRPC's own C core, and another project's messages.

Both protocols are spoken through one face, `Call`; what only one of them can say is on its own class.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue

import grpc
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.service.discovery import v3 as discovery
from envoy_data_plane.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from envoy_data_plane.google.rpc import Status

from xds.snapshot import Resource

PATIENCE = 15.0


class Protocol(StrEnum):
    """By what the names of its methods begin with."""

    STATE_OF_THE_WORLD = "Stream"
    INCREMENTAL = "Delta"


@dataclass(frozen=True)
class Carried:
    """A resource in a response. body: None where only its lifetime is told. By state of the world none has a name."""

    type_url: str
    body: bytes | None
    name: str = ""
    version: str = ""
    ttl: timedelta | None = None


@dataclass(frozen=True)
class Told:
    """A response. version: of all of its type."""

    type_url: str
    version: str
    nonce: str
    resources: tuple[Carried, ...]
    removed: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [resource.name for resource in self.resources]

    @property
    def bodies(self) -> list[bytes | None]:
        return [resource.body for resource in self.resources]


@contextmanager
def connected(path: Path) -> Iterator[Core]:
    """A connection of the C core to the socket; every call on it ends with it."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        yield Core(channel)


class Core:
    """Opens calls on one connection."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, protocol: Protocol, path: str) -> Call:
        """A call of the method at `path`, which speaks this protocol."""
        return self.sotw(path) if protocol is Protocol.STATE_OF_THE_WORLD else self.delta(path)

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


class Call(ABC):
    """One stream. Its first message alone carries the node."""

    response: type[DiscoveryResponse] | type[DeltaDiscoveryResponse]

    def __init__(self, channel: grpc.Channel, path: str) -> None:
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        self._node: Node | None = Node(id="conformance", cluster="test")
        stream = channel.stream_stream(path, response_deserializer=self.response.parse)
        self._call = stream(iter(self._requests.get, None), timeout=PATIENCE)

    @abstractmethod
    def ask(self, type_url: str, *names: str) -> None:
        """Want `names`, for the first time on this stream."""

    @abstractmethod
    def answer(self, told: Told, reason: str | None = None) -> None:
        """Accept a response, or refuse it for a reason."""

    @abstractmethod
    def carried(self, resource: Resource) -> Carried:
        """A resource without a lifetime as a response has it."""

    async def told(self) -> Told:
        """The next response."""
        response = await asyncio.to_thread(next, self._call, None)
        assert response is not None, "the call ended"
        return self._read(response)

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

    @abstractmethod
    def _read(self, response: DiscoveryResponse | DeltaDiscoveryResponse) -> Told: ...

    def _send(self, request: DiscoveryRequest | DeltaDiscoveryRequest) -> None:
        request.node, self._node = self._node, None
        self._requests.put(bytes(request))


class SotwCall(Call):
    response = DiscoveryResponse

    def __init__(self, channel: grpc.Channel, path: str) -> None:
        super().__init__(channel, path)
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._accepted: dict[str, str] = {}

    def ask(self, type_url: str, *names: str, after: Told | None = None) -> None:
        """Want exactly `names`; `after` is the last response, which is thereby accepted."""
        self._wanted[type_url] = names
        if after is not None:
            self._accepted[type_url] = after.version
        self._say(type_url, "" if after is None else after.nonce)

    def answer(self, told: Told, reason: str | None = None) -> None:
        if reason is None:
            self._accepted[told.type_url] = told.version
        self._say(told.type_url, told.nonce, reason)

    def carried(self, resource: Resource) -> Carried:
        return Carried(resource.type_url, resource.body)

    def _read(self, response: DiscoveryResponse | DeltaDiscoveryResponse) -> Told:
        assert isinstance(response, DiscoveryResponse)
        resources = tuple(Carried(each.type_url, each.value) for each in response.resources)
        return Told(response.type_url, response.version_info, response.nonce, resources)

    def _say(self, type_url: str, nonce: str, reason: str | None = None) -> None:
        self._send(
            DiscoveryRequest(
                type_url=type_url,
                resource_names=list(self._wanted[type_url]),
                version_info=self._accepted.get(type_url, ""),
                response_nonce=nonce,
                error_detail=_status(reason),
            )
        )


class DeltaCall(Call):
    response = DeltaDiscoveryResponse

    def ask(self, type_url: str, *names: str, holding: dict[str, str] | None = None) -> None:
        """Want `names` as well; `holding` are versions kept from an earlier call."""
        self._send(
            DeltaDiscoveryRequest(
                type_url=type_url, resource_names_subscribe=list(names), initial_resource_versions=holding or {}
            )
        )

    def answer(self, told: Told, reason: str | None = None) -> None:
        self._send(
            DeltaDiscoveryRequest(type_url=told.type_url, response_nonce=told.nonce, error_detail=_status(reason))
        )

    def carried(self, resource: Resource) -> Carried:
        return Carried(resource.type_url, resource.body, resource.name, resource.version)

    def _read(self, response: DiscoveryResponse | DeltaDiscoveryResponse) -> Told:
        assert isinstance(response, DeltaDiscoveryResponse)
        resources = tuple(map(_named, response.resources))
        version = response.system_version_info
        return Told(response.type_url, version, response.nonce, resources, tuple(response.removed_resources))


def _named(resource: discovery.Resource) -> Carried:
    content = resource.resource
    if content is None:
        return Carried("", None, resource.name, resource.version, resource.ttl)
    return Carried(content.type_url, content.value, resource.name, resource.version, resource.ttl)


def _status(reason: str | None) -> Status | None:
    return None if reason is None else Status(code=3, message=reason)
