"""What one sidecar Envoy is for: the ports it serves, the peers it reaches, and who may be at the other end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xds.errors import BootstrapError
from xds.resources.transport import Identities, Json, SecretNames

Application = Literal["http", "tcp"]


@dataclass(frozen=True, slots=True)
class HostPort:
    """An IP address and a port."""

    host: str
    port: int

    def envoy(self) -> Json:
        """As Envoy's Address."""
        return {"socket_address": {"address": self.host, "port_value": self.port}}


@dataclass(frozen=True, slots=True)
class Inbound:
    """A port on which peers call the application at `app`, by mutual TLS. `callers` is who may.

    Raises BootstrapError when nobody is named.
    """

    listen: HostPort
    app: HostPort
    protocol: Application
    callers: Identities

    def __post_init__(self) -> None:
        if not self.callers:
            raise BootstrapError(
                f"inbound port {self.listen.port}: nobody is named who may call, and Envoy would take that "
                "for anybody; name at least one identity or prefix"
            )

    @property
    def name(self) -> str:
        """Of its listener and its routes."""
        return f"inbound-{self.listen.port}"

    @property
    def cluster(self) -> str:
        """Of the application behind it."""
        return f"app-{self.listen.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A local plaintext port behind which `peers`, any of them, are reached by mutual TLS, as one of `identities`.

    `connection_per_request` makes each HTTP request a handshake of its own, so that the peer's certificate is
    looked at each time; it costs a handshake. `health_check` has Envoy shake hands with every peer twenty times a
    second, and close what is open to one that fails: for whoever may not destroy sockets. Raises BootstrapError when
    nobody is named, or no address.
    """

    name: str
    listen: HostPort
    peers: tuple[HostPort, ...]
    protocol: Application
    identities: Identities
    connection_per_request: bool = False
    health_check: bool = False

    def __post_init__(self) -> None:
        if not self.peers or len(set(self.peers)) < len(self.peers):
            raise BootstrapError(f"upstream {self.name!r}: its peers are missing or repeated; name each address once")
        if not self.identities:
            raise BootstrapError(
                f"upstream {self.name!r}: its identities are missing, and Envoy would take any; "
                "name at least one identity or prefix"
            )

    @property
    def listener(self) -> str:
        """The name of its listener and its routes."""
        return f"outbound-{self.name}"


@dataclass(frozen=True, slots=True)
class FilterNames:
    """The names under which Envoy asks for its RBAC filters."""

    inbound_http: str = "rbac-inbound-http"
    outbound_http: str = "rbac-outbound-http"
    inbound_tcp: str = "rbac-inbound-tcp"
    outbound_tcp: str = "rbac-outbound-tcp"

    def inbound(self, protocol: Application) -> str:
        return self.inbound_http if protocol == "http" else self.inbound_tcp

    def outbound(self, protocol: Application) -> str:
        return self.outbound_http if protocol == "http" else self.outbound_tcp


@dataclass(frozen=True, slots=True)
class Service:
    """Ports and peers, with what all their listeners and clusters share.

    `deny_reason` names the denial in force while no filter is delivered. `max_connection_seconds` caps every
    connection, both ways; None: no cap. Raises BootstrapError for a name used twice.
    """

    access_log: Path
    inbound: tuple[Inbound, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    secrets: SecretNames = field(default_factory=SecretNames)
    filters: FilterNames = field(default_factory=FilterNames)
    deny_reason: str = "no-fresh-attestation"
    max_connection_seconds: float | None = None

    def __post_init__(self) -> None:
        names = [upstream.name for upstream in self.upstreams]
        if len(set(names)) < len(names):
            raise BootstrapError(f"upstreams {sorted(names)}: a name is used twice; give each its own")
