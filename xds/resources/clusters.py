"""Clusters (as JSON): the application behind an inbound port, and the peers behind mutual TLS."""

from __future__ import annotations

from xds.messages import TYPE_PREFIX
from xds.resources.service import HostPort, Inbound, Service, Upstream
from xds.resources.transport import HTTP_OPTIONS, Json, load_assignment, seconds, upstream_tls

_HEALTH_CHECK: Json = {
    "health_checks": [
        {
            "timeout": "1s",
            "interval": "0.05s",
            "no_traffic_interval": "0.05s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "reuse_connection": False,
            "tcp_health_check": {},
        }
    ],
    "close_connections_on_host_health_failure": True,
    # By default Envoy turns to failed peers again when most have failed: a denial would end there.
    "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
}
"""A handshake every 50 ms: a certificate that was revoked fails the next one, and with it end open connections."""


def app_cluster(inbound: Inbound) -> Json:
    """The application itself, in plaintext."""
    cluster = _static_cluster(inbound.cluster, inbound.app)
    if inbound.protocol == "http":
        cluster["typed_extension_protocol_options"] = _http_options({})
    return cluster


def peer_cluster(service: Service, source: Json, upstream: Upstream, *, delivered: bool = False) -> Json:
    """The peers behind an upstream. `source` brings secrets, and its endpoints too where they are `delivered`."""
    # Without protocols of its own, TLS offers by ALPN the one that the caller speaks.
    tls = upstream_tls(source, service.secrets, upstream.identities)
    base = _delivered_cluster(upstream.name, source) if delivered else _static_cluster(upstream.name, *upstream.peers)
    cluster = {**base, "transport_socket": tls}
    if upstream.health_check:
        cluster.update(_HEALTH_CHECK)
    if upstream.protocol == "http":
        common: Json = {}
        if upstream.connection_per_request:
            common["max_requests_per_connection"] = 1
        if service.max_connection_seconds is not None:
            common["max_connection_duration"] = seconds(service.max_connection_seconds)
        cluster["typed_extension_protocol_options"] = _http_options(common)
    return cluster


def _static_cluster(name: str, *addresses: HostPort) -> Json:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": load_assignment(name, *(each.envoy() for each in addresses)),
    }


def _delivered_cluster(name: str, source: Json) -> Json:
    return {"name": name, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": source}}


def _http_options(common: Json) -> Json:
    """The protocol version that the caller speaks goes all the way through, so gRPC works as HTTP/1.1 does."""
    options: Json = {
        "@type": TYPE_PREFIX + HTTP_OPTIONS,
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
    }
    if common:
        options["common_http_protocol_options"] = common
    return {HTTP_OPTIONS: options}
