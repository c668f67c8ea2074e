"""The bootstrap of an Envoy that is delivered its secrets and RBAC filters only: listeners and clusters are static.

Never put `ads: {}` into a static cluster: Envoy 1.40 crashes on it. Secrets have their own incremental source here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xds.errors import BootstrapError
from xds.messages import TYPE_PREFIX
from xds.resources.filters import Chain, file_log, http_filters, tcp_filters
from xds.resources.transport import (
    Identities,
    Json,
    SecretNames,
    config_source,
    downstream_tls,
    load_assignment,
    upstream_tls,
    xds_cluster,
)

Application = Literal["http", "tcp"]
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_ADMIN_MODE = 0o600


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
    """A port on which peers call the application at `app`, by mutual TLS. `callers` is who may."""

    listen: HostPort
    app: HostPort
    protocol: Application
    callers: Identities


@dataclass(frozen=True, slots=True)
class Upstream:
    """A local plaintext port behind which a peer is reached by mutual TLS, as one of `identities`.

    `connection_per_request` makes each HTTP request a handshake of its own, so that the peer's certificate is
    looked at each time; it costs a handshake.
    """

    name: str
    listen: HostPort
    peer: HostPort
    protocol: Application
    identities: Identities
    connection_per_request: bool = False


@dataclass(frozen=True, slots=True)
class FilterNames:
    """The names under which Envoy asks for its RBAC filters."""

    inbound_http: str = "rbac-inbound-http"
    outbound_http: str = "rbac-outbound-http"
    inbound_tcp: str = "rbac-inbound-tcp"
    outbound_tcp: str = "rbac-outbound-tcp"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The whole of one sidecar Envoy.

    `before_first`: "silent" leaves Envoy initialising, its ports unbound, until the first secrets come; "refuse"
    lets it go live at once, for a server that always has secrets to give. `deny_reason` names the denial in force
    while no filter is delivered. `max_connection_seconds` caps every connection, both ways; None: no cap.
    """

    node_id: str
    node_cluster: str
    xds_socket: Path
    admin_socket: Path
    access_log: Path
    inbound: tuple[Inbound, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    secrets: SecretNames = field(default_factory=SecretNames)
    filters: FilterNames = field(default_factory=FilterNames)
    before_first: Literal["silent", "refuse"] = "silent"
    refuse_after_seconds: float = 1.0
    deny_reason: str = "no-fresh-attestation"
    max_connection_seconds: float | None = None

    def __post_init__(self) -> None:
        for inbound in self.inbound:
            if not inbound.callers:
                raise BootstrapError(
                    f"inbound port {inbound.listen.port}: nobody is named who may call, and Envoy would take that "
                    "for anybody; name at least one identity or prefix"
                )
        for upstream in self.upstreams:
            if not upstream.identities:
                raise BootstrapError(
                    f"upstream {upstream.name!r}: its identities are missing, and Envoy would take any; "
                    "name at least one identity or prefix"
                )
        names = [upstream.name for upstream in self.upstreams]
        if len(set(names)) < len(names):
            raise BootstrapError(f"upstreams {sorted(names)}: a name is used twice; give each its own")


def envoy_bootstrap(description: Bootstrap) -> Json:
    """The bootstrap as a plain JSON object."""
    source = config_source(_initial_fetch_timeout(description))
    return {
        "node": {"id": description.node_id, "cluster": description.node_cluster},
        "admin": {"address": {"pipe": {"path": str(description.admin_socket), "mode": _ADMIN_MODE}}},
        "static_resources": {
            "listeners": [
                *(_inbound_listener(description, source, inbound) for inbound in description.inbound),
                *(_outbound_listener(description, source, upstream) for upstream in description.upstreams),
            ],
            "clusters": [
                xds_cluster(description.xds_socket),
                *(_app_cluster(inbound) for inbound in description.inbound),
                *(_peer_cluster(description, source, upstream) for upstream in description.upstreams),
            ],
        },
    }


def write_bootstrap(description: Bootstrap, path: Path) -> None:
    """Write the bootstrap to `path` (mode 0600), complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(envoy_bootstrap(description), file, indent=1)
    temporary.rename(path)


def envoy_command(
    envoy: Path | str,
    config: Path,
    *,
    concurrency: int = 2,
    base_id: int | None = None,
    log_level: str = "warning",
    extra: Sequence[str] = (),
) -> list[str]:
    """The argument list that runs Envoy on `config`.

    `--drain-time-s 0` has a removed or replaced listener cut its connections at once instead of draining them for
    ten minutes. `--base-id` keeps the shared memory of Envoys on one host apart; without a number Envoy picks a
    free one (`--use-dynamic-base-id`). `--concurrency` is the number of worker threads, by default one a core,
    which is too many for a sidecar.
    """
    base = ["--use-dynamic-base-id"] if base_id is None else ["--base-id", str(base_id)]
    return [
        str(envoy),
        "--config-path",
        str(config),
        "--drain-time-s",
        "0",
        "--concurrency",
        str(concurrency),
        "--log-level",
        log_level,
        *base,
        *extra,
    ]


def _initial_fetch_timeout(description: Bootstrap) -> str:
    """0 waits for ever, with the ports unbound; any other time ends in Envoy going live without secrets."""
    return "0s" if description.before_first == "silent" else _seconds(description.refuse_after_seconds)


def _inbound_listener(description: Bootstrap, source: Json, inbound: Inbound) -> Json:
    name = f"inbound-{inbound.listen.port}"
    http = inbound.protocol == "http"
    names = description.filters
    chain = _chain(description, source, name, _app_name(inbound), names.inbound_http if http else names.inbound_tcp)
    tls = downstream_tls(source, description.secrets, inbound.callers, ["h2", "http/1.1"] if http else [])
    filters = http_filters(chain) if http else tcp_filters(chain)
    return {
        "name": name,
        "address": inbound.listen.envoy(),
        "access_log": [file_log(description.access_log, name, "connection")],
        "filter_chains": [{"transport_socket": tls, "filters": filters}],
    }


def _outbound_listener(description: Bootstrap, source: Json, upstream: Upstream) -> Json:
    name = f"outbound-{upstream.name}"
    http = upstream.protocol == "http"
    names = description.filters
    chain = _chain(description, source, name, upstream.name, names.outbound_http if http else names.outbound_tcp)
    return {
        "name": name,
        "address": upstream.listen.envoy(),
        "filter_chains": [{"filters": http_filters(chain) if http else tcp_filters(chain)}],
    }


def _chain(description: Bootstrap, source: Json, name: str, cluster: str, filter_name: str) -> Chain:
    cap = description.max_connection_seconds
    return Chain(
        name,
        cluster,
        filter_name,
        source,
        description.access_log,
        description.deny_reason,
        None if cap is None else _seconds(cap),
    )


def _app_name(inbound: Inbound) -> str:
    return f"app-{inbound.listen.port}"


def _app_cluster(inbound: Inbound) -> Json:
    name = _app_name(inbound)
    cluster = _static_cluster(name, inbound.app)
    if inbound.protocol == "http":
        cluster["typed_extension_protocol_options"] = _http_options({})
    return cluster


def _peer_cluster(description: Bootstrap, source: Json, upstream: Upstream) -> Json:
    # Without protocols of its own, TLS offers by ALPN the one that the caller speaks.
    tls = upstream_tls(source, description.secrets, upstream.identities)
    cluster = {**_static_cluster(upstream.name, upstream.peer), "transport_socket": tls}
    if upstream.protocol == "http":
        common: Json = {}
        if upstream.connection_per_request:
            common["max_requests_per_connection"] = 1
        if description.max_connection_seconds is not None:
            common["max_connection_duration"] = _seconds(description.max_connection_seconds)
        cluster["typed_extension_protocol_options"] = _http_options(common)
    return cluster


def _static_cluster(name: str, address: HostPort) -> Json:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": load_assignment(name, address.envoy()),
    }


def _http_options(common: Json) -> Json:
    """The protocol version that the caller speaks goes all the way through, so gRPC works as HTTP/1.1 does."""
    options: Json = {
        "@type": TYPE_PREFIX + _HTTP_OPTIONS,
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
    }
    if common:
        options["common_http_protocol_options"] = common
    return {_HTTP_OPTIONS: options}


def _seconds(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"
