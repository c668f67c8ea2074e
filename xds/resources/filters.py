"""Filter chains for HTTP and TCP: an RBAC filter that is delivered, then the proxy itself (as JSON)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xds.messages import HTTP_RBAC, TCP_RBAC, TYPE_PREFIX
from xds.resources.rbac import http_rules, tcp_rules
from xds.resources.routes import everything_to
from xds.resources.transport import XDS_CLUSTER, Json

_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_TCP_GRPC_LOG = "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig"
_FILE_LOG = "envoy.extensions.access_loggers.file.v3.FileAccessLog"

_EARLY_DATA_BYTES = 64 * 1024
"""What a caller may send before the application's end is connected; then Envoy reads no more of it."""

_LOG_FIELDS = {
    "start": "%START_TIME%",
    "listener": "",
    "event": "",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "peer_serial": "%DOWNSTREAM_PEER_SERIAL%",
    "peer_fingerprint": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
    "peer_subject": "%DOWNSTREAM_PEER_SUBJECT%",
    "downstream_failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "upstream": "%UPSTREAM_REMOTE_ADDRESS%",
    "upstream_peer": "%UPSTREAM_PEER_URI_SAN%",
    "upstream_subject": "%UPSTREAM_PEER_SUBJECT%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "duration_ms": "%DURATION%",
}

_LAST_WORDS = "0.05s"
"""Between Envoy's last answer on a connection and its end: whoever is refused in the middle of an upload reads why. By
default it is a second, in which a WebSocket whose other half is gone stays open and carries nothing."""

_DENIALS: Json = {
    "mappers": [
        {
            "filter": {
                "status_code_filter": {
                    "comparison": {"op": "EQ", "value": {"default_value": 403, "runtime_key": "denial_status"}}
                }
            },
            "body_format_override": {
                "json_format": {
                    "type": "about:blank",
                    "title": "Forbidden",
                    "status": "%RESPONSE_CODE%",
                    "detail": "%RESPONSE_CODE_DETAILS%",
                },
                "content_type": "application/problem+json",
            },
        }
    ]
}
"""Envoy's own 403 as a problem document (RFC 9457), with the name of the policy that denied. An application's 403 is
no local reply, and passes as it is."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What both kinds of filter chain need. `max_connection` is a duration as Envoy writes it, or None.

    `delivered_routes`: the routes come by the chain's name from `source`, too. `tells_callers`: the server is told of
    each TCP connection (xds.callers).
    """

    name: str
    cluster: str
    filter_name: str
    source: Json
    access_log: Path
    deny_reason: str
    max_connection: str | None
    delivered_routes: bool = False
    tells_callers: bool = False


def http_filters(chain: Chain) -> list[Json]:
    """A connection manager that asks the delivered RBAC filter before it routes to the cluster."""
    manager: Json = {
        "@type": TYPE_PREFIX + _HCM,
        "stat_prefix": chain.name,
        "codec_type": "AUTO",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "access_log": [file_log(chain.access_log, chain.name, "request")],
        "http_filters": [
            delivered(chain, {"@type": TYPE_PREFIX + HTTP_RBAC, **http_rules("DENY", chain.deny_reason)}),
            {"name": "envoy.filters.http.router", "typed_config": {"@type": TYPE_PREFIX + _ROUTER}},
        ],
        **_routes(chain),
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "local_reply_config": _DENIALS,
        "delayed_close_timeout": _LAST_WORDS,
    }
    if chain.max_connection is not None:
        manager["common_http_protocol_options"] = {"max_connection_duration": chain.max_connection}
    return [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]


def tcp_filters(chain: Chain) -> list[Json]:
    """The delivered RBAC filter, then a proxy of bytes to the cluster."""
    proxy: Json = {
        "@type": TYPE_PREFIX + _TCP_PROXY,
        "stat_prefix": chain.name,
        "cluster": chain.cluster,
        "access_log": [file_log(chain.access_log, chain.name, "stream")],
    }
    if chain.tells_callers:
        proxy.update(_telling_callers(chain))
    if chain.max_connection is not None:
        proxy["max_downstream_connection_duration"] = chain.max_connection
    return [
        delivered(chain, {"@type": TYPE_PREFIX + TCP_RBAC, **tcp_rules("DENY", chain.deny_reason)}),
        {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy},
    ]


def _telling_callers(chain: Chain) -> Json:
    """A word as a connection begins, when its certificate is known, and one as it ends; the file tells of its end
    alone, as ever. Under a rush of connections many words share a message (16 KB of them, or those of 50 ms)."""
    but_began = {"log_type_filter": {"types": ["TcpUpstreamConnected"], "exclude": True}}
    return {
        "upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE",
        "max_early_data_bytes": _EARLY_DATA_BYTES,
        "access_log_options": {"flush_access_log_on_connected": True},
        "access_log": [
            {**file_log(chain.access_log, chain.name, "stream"), "filter": but_began},
            {
                "name": "envoy.access_loggers.tcp_grpc",
                "typed_config": {
                    "@type": TYPE_PREFIX + _TCP_GRPC_LOG,
                    "common_config": {
                        "log_name": chain.name,
                        "transport_api_version": "V3",
                        "buffer_flush_interval": "0.05s",
                        "grpc_service": {"envoy_grpc": {"cluster_name": XDS_CLUSTER}},
                    },
                },
            },
        ],
    }


def delivered(chain: Chain, default: Json) -> Json:
    """A filter by extension config discovery. Until it is delivered, and after its lifetime, `default` is in force."""
    return {
        "name": chain.filter_name,
        "config_discovery": {
            "config_source": chain.source,
            "type_urls": [default["@type"]],
            "default_config": default,
            "apply_default_config_without_warming": True,
        },
    }


def file_log(path: Path, listener: str, event: str) -> Json:
    """One JSON object a line. A listener's own log tells of handshakes that failed, which no other log sees."""
    fields = {**_LOG_FIELDS, "listener": listener, "event": event}
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": TYPE_PREFIX + _FILE_LOG,
            "path": str(path),
            "log_format": {"json_format": fields},
        },
    }


def _routes(chain: Chain) -> Json:
    if chain.delivered_routes:
        return {"rds": {"config_source": chain.source, "route_config_name": chain.name}}
    return {"route_config": everything_to(chain.name, chain.cluster)}
