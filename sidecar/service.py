"""What an Envoy that is delivered everything is for, as short settings: its ports, its peers, and who these may be."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from attestation.errors import InvalidInput
from attestation.spiffe import SpiffeId
from policies.model.dialect import Duration, Strict
from xds.resources.service import HostPort, Inbound, Service, Upstream
from xds.resources.transport import Identities, SecretNames


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        good = 0 < int(port) < 65536
    except ValueError:
        good = False
    if not good:
        raise ValueError("an IP address and a port are needed, as 127.0.0.1:8080 or [::1]:8080")
    return text


def _identity(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except InvalidInput as error:
        raise ValueError(error.sentence) from error


Address = Annotated[str, AfterValidator(_address)]
Peers = Annotated[tuple[Annotated[str, AfterValidator(_identity)], ...], Field(min_length=1)]
"""SPIFFE IDs, any of which the other end must present."""


class InboundSettings(Strict):
    """listen: where peers call. app: where the workload itself listens, in plaintext."""

    listen: Address
    app: Address
    protocol: Literal["http", "tcp"] = "http"
    callers: Peers


class UpstreamSettings(Strict):
    """listen: where the workload calls, in plaintext. peers: where the peer's Envoys listen, one or several.

    connection_per_request: each HTTP request shakes hands anew. health_check: Envoy shakes hands with every peer
    twenty times a second and cuts what is open to one that fails; for where the measurer may not destroy sockets.
    """

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    listen: Address
    peers: Annotated[tuple[Address, ...], Field(min_length=1)]
    protocol: Literal["http", "tcp"] = "http"
    identities: Peers
    connection_per_request: bool = False
    health_check: bool = False

    @field_validator("peers")
    @classmethod
    def _each_address_once(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        if len({host_port(each) for each in peers}) < len(peers):
            raise ValueError(f"an address is named twice among {', '.join(peers)}: name each once")
        return peers


class ServiceSettings(Strict):
    """bootstrap: the file that the sidecar writes for `envoy --config-path`. admin: Envoy's own socket, mode 0600.

    max_connection: how long any connection may live, either way; None for no end. It ends what nobody here can cut: a
    TCP connection that a peer opened before it was denied, and that its own sidecar does not close.

    For `--run-envoy` alone: envoy: the program, by default the one beside Proofbeat or on PATH. log: where its output
    goes, by default to the sidecar's own stderr. concurrency: its worker threads.
    """

    bootstrap: Path
    admin: Path
    access_log: Path
    envoy: Path | None = None
    log: Path | None = None
    concurrency: int = Field(default=2, ge=1)
    max_connection: Duration | None = Field(default=None, gt=0)
    inbound: tuple[InboundSettings, ...] = ()
    upstreams: tuple[UpstreamSettings, ...] = ()

    @field_validator("upstreams")
    @classmethod
    def _each_its_own_name(cls, upstreams: tuple[UpstreamSettings, ...]) -> tuple[UpstreamSettings, ...]:
        names = [each.name for each in upstreams]
        if len(set(names)) < len(names):
            raise ValueError(f"a name is used twice among {', '.join(sorted(names))}: give each upstream its own")
        return upstreams

    def described(self, secrets: SecretNames) -> Service:
        """As xds/ builds from it."""
        return Service(
            access_log=self.access_log,
            inbound=tuple(
                Inbound(host_port(each.listen), host_port(each.app), each.protocol, Identities(exact=each.callers))
                for each in self.inbound
            ),
            upstreams=tuple(
                Upstream(
                    each.name,
                    host_port(each.listen),
                    tuple(host_port(peer) for peer in each.peers),
                    each.protocol,
                    Identities(exact=each.identities),
                    each.connection_per_request,
                    each.health_check,
                )
                for each in self.upstreams
            ),
            secrets=secrets,
            max_connection_seconds=self.max_connection,
        )


def host_port(text: str) -> HostPort:
    """Of an Address."""
    host, _, port = text.rpartition(":")
    # In one form, since addresses are compared.
    return HostPort(str(ipaddress.ip_address(host.strip("[]"))), int(port))
