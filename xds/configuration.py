"""Listeners, clusters, routes and endpoints: Envoy's JSON form in, the bytes of its messages out.

A static bootstrap and a served resource are written by the same builders as JSON; here the served ones become
protobuf. The table holds only the fields that those builders use, with the numbers of Envoy's v3 API, and lives in a
pool of its own that is made at the first use: a server of secrets alone never pays for it. Nested messages carry their
parent's name as a prefix, which the wire does not see.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from google.protobuf import json_format

from xds.descriptors import Field, Schema, build
from xds.errors import ConfigurationError
from xds.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES

_ANY: Final = "google.protobuf.Any"
_DURATION: Final = "google.protobuf.Duration"
_BOOL: Final = "google.protobuf.BoolValue"
_UINT: Final = "google.protobuf.UInt32Value"
_CORE: Final = "envoy.config.core.v3."
_LOG: Final = "envoy.config.accesslog.v3."
_ENDPOINT: Final = "envoy.config.endpoint.v3."
_ROUTE: Final = "envoy.config.route.v3."
_LISTENER: Final = "envoy.config.listener.v3."
_CLUSTER: Final = "envoy.config.cluster.v3."
_RBAC: Final = "envoy.config.rbac.v3."
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3."
_TCP: Final = "envoy.extensions.filters.network.tcp_proxy.v3."
_GRPC_LOG: Final = "envoy.extensions.access_loggers.grpc.v3."
_HCM: Final = "envoy.extensions.filters.network.http_connection_manager.v3."
_STATE: Final = "envoy.extensions.filters.common.set_filter_state.v3."
_HTTP: Final = "envoy.extensions.upstreams.http.v3."

_CORE_MESSAGES: Final = {
    _CORE + "SocketAddress": (Field(2, "address", "string"), Field(3, "port_value", "uint32")),
    _CORE + "Address": (Field(1, "socket_address", _CORE + "SocketAddress"),),
    _CORE + "TransportSocket": (Field(1, "name", "string"), Field(3, "typed_config", _ANY)),
    _CORE + "AggregatedConfigSource": (),
    _CORE + "ConfigSource": (
        Field(3, "ads", _CORE + "AggregatedConfigSource"),
        Field(4, "initial_fetch_timeout", _DURATION),
        Field(6, "resource_api_version", "enum " + _CORE + "ApiVersion"),
    ),
    _CORE + "ExtensionConfigSource": (
        Field(1, "config_source", _CORE + "ConfigSource"),
        Field(2, "default_config", _ANY),
        Field(3, "apply_default_config_without_warming", "bool"),
        Field(4, "type_urls", "string", repeated=True),
    ),
    _CORE + "DataSource": (Field(3, "inline_string", "string"),),
    _CORE + "SubstitutionFormatString": (
        Field(2, "json_format", "google.protobuf.Struct"),
        Field(4, "content_type", "string"),
        Field(5, "text_format_source", _CORE + "DataSource"),
    ),
    _CORE + "RuntimeUInt32": (Field(2, "default_value", "uint32"), Field(3, "runtime_key", "string")),
    _CORE + "HttpProtocolOptions": (
        Field(3, "max_connection_duration", _DURATION),
        Field(6, "max_requests_per_connection", _UINT),
    ),
    _CORE + "Http1ProtocolOptions": (),
    _CORE + "Http2ProtocolOptions": (),
    _CORE + "HealthCheckTcpHealthCheck": (),
    _CORE + "HealthCheck": (
        Field(1, "timeout", _DURATION),
        Field(2, "interval", _DURATION),
        Field(4, "unhealthy_threshold", _UINT),
        Field(5, "healthy_threshold", _UINT),
        Field(7, "reuse_connection", _BOOL),
        Field(9, "tcp_health_check", _CORE + "HealthCheckTcpHealthCheck"),
        Field(12, "no_traffic_interval", _DURATION),
        Field(24, "no_traffic_healthy_interval", _DURATION),
    ),
}

_LOG_MESSAGES: Final = {
    _LOG + "ComparisonFilter": (
        Field(1, "op", "enum " + _LOG + "ComparisonFilterOp"),
        Field(2, "value", _CORE + "RuntimeUInt32"),
    ),
    _LOG + "StatusCodeFilter": (Field(1, "comparison", _LOG + "ComparisonFilter"),),
    _LOG + "LogTypeFilter": (
        Field(1, "types", "enum " + _LOG + "AccessLogType", repeated=True),
        Field(2, "exclude", "bool"),
    ),
    _LOG + "AccessLogFilter": (
        Field(1, "status_code_filter", _LOG + "StatusCodeFilter"),
        Field(13, "log_type_filter", _LOG + "LogTypeFilter"),
    ),
    _LOG + "AccessLog": (
        Field(1, "name", "string"),
        Field(2, "filter", _LOG + "AccessLogFilter"),
        Field(4, "typed_config", _ANY),
    ),
    "envoy.extensions.access_loggers.file.v3.FileAccessLog": (
        Field(1, "path", "string"),
        Field(5, "log_format", _CORE + "SubstitutionFormatString"),
    ),
    _CORE + "GrpcServiceEnvoyGrpc": (Field(1, "cluster_name", "string"),),
    _CORE + "GrpcService": (Field(1, "envoy_grpc", _CORE + "GrpcServiceEnvoyGrpc"),),
    _GRPC_LOG + "CommonGrpcAccessLogConfig": (
        Field(1, "log_name", "string"),
        Field(2, "grpc_service", _CORE + "GrpcService"),
        Field(3, "buffer_flush_interval", _DURATION),
        Field(6, "transport_api_version", "enum " + _CORE + "ApiVersion"),
    ),
    _GRPC_LOG + "TcpGrpcAccessLogConfig": (Field(1, "common_config", _GRPC_LOG + "CommonGrpcAccessLogConfig"),),
}

_ENDPOINT_MESSAGES: Final = {
    _ENDPOINT + "Endpoint": (Field(1, "address", _CORE + "Address"),),
    _ENDPOINT + "LbEndpoint": (
        Field(1, "endpoint", _ENDPOINT + "Endpoint"),
        Field(2, "health_status", "enum " + _CORE + "HealthStatus"),
    ),
    _ENDPOINT + "LocalityLbEndpoints": (Field(2, "lb_endpoints", _ENDPOINT + "LbEndpoint", repeated=True),),
    ENDPOINTS: (
        Field(1, "cluster_name", "string"),
        Field(2, "endpoints", _ENDPOINT + "LocalityLbEndpoints", repeated=True),
    ),
}

_ROUTE_MESSAGES: Final = {
    _ROUTE + "RouteMatch": (Field(1, "prefix", "string"),),
    _ROUTE + "RouteAction": (
        Field(1, "cluster", "string"),
        Field(8, "timeout", _DURATION),
    ),
    _ROUTE + "Route": (
        Field(1, "match", _ROUTE + "RouteMatch"),
        Field(2, "route", _ROUTE + "RouteAction"),
    ),
    _ROUTE + "VirtualHost": (
        Field(1, "name", "string"),
        Field(2, "domains", "string", repeated=True),
        Field(3, "routes", _ROUTE + "Route", repeated=True),
    ),
    ROUTES: (Field(1, "name", "string"), Field(2, "virtual_hosts", _ROUTE + "VirtualHost", repeated=True)),
}

_TLS_MESSAGES: Final = {
    "envoy.type.matcher.v3.StringMatcher": (Field(1, "exact", "string"), Field(2, "prefix", "string")),
    _TLS + "TlsParameters": (
        Field(1, "tls_minimum_protocol_version", "enum " + _TLS + "TlsProtocol"),
        Field(2, "tls_maximum_protocol_version", "enum " + _TLS + "TlsProtocol"),
    ),
    _TLS + "SdsSecretConfig": (Field(1, "name", "string"), Field(2, "sds_config", _CORE + "ConfigSource")),
    _TLS + "SubjectAltNameMatcher": (
        Field(1, "san_type", "enum " + _TLS + "SanType"),
        Field(2, "matcher", "envoy.type.matcher.v3.StringMatcher"),
    ),
    _TLS + "CertificateValidationContext": (
        Field(15, "match_typed_subject_alt_names", _TLS + "SubjectAltNameMatcher", repeated=True),
    ),
    _TLS + "CommonTlsContextCombined": (
        Field(1, "default_validation_context", _TLS + "CertificateValidationContext"),
        Field(2, "validation_context_sds_secret_config", _TLS + "SdsSecretConfig"),
    ),
    _TLS + "CommonTlsContext": (
        Field(1, "tls_params", _TLS + "TlsParameters"),
        Field(4, "alpn_protocols", "string", repeated=True),
        Field(6, "tls_certificate_sds_secret_configs", _TLS + "SdsSecretConfig", repeated=True),
        Field(8, "combined_validation_context", _TLS + "CommonTlsContextCombined"),
    ),
    _TLS + "DownstreamTlsContext": (
        Field(1, "common_tls_context", _TLS + "CommonTlsContext"),
        Field(2, "require_client_certificate", _BOOL),
        Field(7, "disable_stateless_session_resumption", "bool"),
        Field(10, "disable_stateful_session_resumption", "bool"),
    ),
    _TLS + "UpstreamTlsContext": (
        Field(1, "common_tls_context", _TLS + "CommonTlsContext"),
        Field(4, "max_session_keys", _UINT),
    ),
}

_RBAC_MESSAGES: Final = {
    _RBAC + "Permission": (Field(3, "any", "bool"),),
    _RBAC + "Principal": (Field(3, "any", "bool"),),
    _RBAC + "Policy": (
        Field(1, "permissions", _RBAC + "Permission", repeated=True),
        Field(2, "principals", _RBAC + "Principal", repeated=True),
    ),
    _RBAC + "RBAC": (
        Field(1, "action", "enum " + _RBAC + "Action"),
        Field(2, "policies", _RBAC + "Policy", map=True),
    ),
    "envoy.extensions.filters.http.rbac.v3.RBAC": (Field(1, "rules", _RBAC + "RBAC"),),
    "envoy.extensions.filters.network.rbac.v3.RBAC": (
        Field(1, "rules", _RBAC + "RBAC"),
        Field(3, "stat_prefix", "string"),
    ),
}

_STATE_MESSAGES: Final = {
    _STATE + "FilterStateValue": (
        Field(1, "object_key", "string"),
        Field(2, "format_string", _CORE + "SubstitutionFormatString"),
        Field(6, "factory_key", "string"),
    ),
    "envoy.extensions.filters.network.set_filter_state.v3.Config": (
        Field(2, "on_downstream_tls_handshake", _STATE + "FilterStateValue", repeated=True),
    ),
}

_FILTER_MESSAGES: Final = {
    "envoy.extensions.filters.http.router.v3.Router": (),
    _TCP + "TcpProxyTcpAccessLogOptions": (Field(2, "flush_access_log_on_connected", "bool"),),
    _TCP + "TcpProxy": (
        Field(1, "stat_prefix", "string"),
        Field(2, "cluster", "string"),
        Field(5, "access_log", _LOG + "AccessLog", repeated=True),
        Field(13, "max_downstream_connection_duration", _DURATION),
        Field(17, "access_log_options", _TCP + "TcpProxyTcpAccessLogOptions"),
        Field(21, "upstream_connect_mode", "enum " + _TCP + "UpstreamConnectMode"),
        Field(22, "max_early_data_bytes", _UINT),
    ),
    _HCM + "HttpFilter": (
        Field(1, "name", "string"),
        Field(4, "typed_config", _ANY),
        Field(5, "config_discovery", _CORE + "ExtensionConfigSource"),
    ),
    _HCM + "Rds": (Field(1, "config_source", _CORE + "ConfigSource"), Field(2, "route_config_name", "string")),
    _HCM + "ClientCertDetails": (Field(5, "uri", "bool"),),
    _HCM + "UpgradeConfig": (Field(1, "upgrade_type", "string"),),
    _HCM + "ResponseMapper": (
        Field(1, "filter", _LOG + "AccessLogFilter"),
        Field(4, "body_format_override", _CORE + "SubstitutionFormatString"),
    ),
    _HCM + "LocalReplyConfig": (Field(1, "mappers", _HCM + "ResponseMapper", repeated=True),),
    _HCM + "HttpConnectionManager": (
        Field(1, "codec_type", "enum " + _HCM + "CodecType"),
        Field(2, "stat_prefix", "string"),
        Field(3, "rds", _HCM + "Rds"),
        Field(4, "route_config", ROUTES),
        Field(5, "http_filters", _HCM + "HttpFilter", repeated=True),
        Field(13, "access_log", _LOG + "AccessLog", repeated=True),
        Field(16, "forward_client_cert_details", "enum " + _HCM + "ForwardClientCertDetails"),
        Field(17, "set_current_client_cert_details", _HCM + "ClientCertDetails"),
        Field(23, "upgrade_configs", _HCM + "UpgradeConfig", repeated=True),
        Field(26, "delayed_close_timeout", _DURATION),
        Field(35, "common_http_protocol_options", _CORE + "HttpProtocolOptions"),
        Field(38, "local_reply_config", _HCM + "LocalReplyConfig"),
    ),
    _LISTENER + "Filter": (
        Field(1, "name", "string"),
        Field(4, "typed_config", _ANY),
        Field(5, "config_discovery", _CORE + "ExtensionConfigSource"),
    ),
    _LISTENER + "FilterChain": (
        Field(3, "filters", _LISTENER + "Filter", repeated=True),
        Field(6, "transport_socket", _CORE + "TransportSocket"),
    ),
    LISTENER: (
        Field(1, "name", "string"),
        Field(2, "address", _CORE + "Address"),
        Field(3, "filter_chains", _LISTENER + "FilterChain", repeated=True),
        Field(22, "access_log", _LOG + "AccessLog", repeated=True),
    ),
}

_CLUSTER_MESSAGES: Final = {
    _HTTP + "UseDownstreamHttpConfig": (
        Field(1, "http_protocol_options", _CORE + "Http1ProtocolOptions"),
        Field(2, "http2_protocol_options", _CORE + "Http2ProtocolOptions"),
    ),
    _HTTP + "HttpProtocolOptions": (
        Field(1, "common_http_protocol_options", _CORE + "HttpProtocolOptions"),
        Field(4, "use_downstream_protocol_config", _HTTP + "UseDownstreamHttpConfig"),
    ),
    "envoy.type.v3.Percent": (Field(1, "value", "double"),),
    _CLUSTER + "ClusterCommonLbConfig": (Field(1, "healthy_panic_threshold", "envoy.type.v3.Percent"),),
    _CLUSTER + "EdsClusterConfig": (Field(1, "eds_config", _CORE + "ConfigSource"),),
    CLUSTER: (
        Field(1, "name", "string"),
        Field(2, "type", "enum " + _CLUSTER + "DiscoveryType"),
        Field(3, "eds_cluster_config", _CLUSTER + "EdsClusterConfig"),
        Field(4, "connect_timeout", _DURATION),
        Field(8, "health_checks", _CORE + "HealthCheck", repeated=True),
        Field(24, "transport_socket", _CORE + "TransportSocket"),
        Field(27, "common_lb_config", _CLUSTER + "ClusterCommonLbConfig"),
        Field(31, "close_connections_on_host_health_failure", "bool"),
        Field(33, "load_assignment", ENDPOINTS),
        Field(36, "typed_extension_protocol_options", _ANY, map=True),
    ),
}

_SCHEMA: Final = Schema(
    enums={
        _CORE + "ApiVersion": ("AUTO", "V2", "V3"),
        _CORE + "HealthStatus": ("UNKNOWN", "HEALTHY", "UNHEALTHY"),
        _LOG + "ComparisonFilterOp": ("EQ", "GE", "LE"),
        _LOG + "AccessLogType": ("NotSet", "TcpUpstreamConnected", "TcpPeriodic", "TcpConnectionEnd"),
        _TCP + "UpstreamConnectMode": ("IMMEDIATE", "ON_DOWNSTREAM_DATA", "ON_DOWNSTREAM_TLS_HANDSHAKE"),
        _TLS + "TlsProtocol": ("TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"),
        _TLS + "SanType": ("SAN_TYPE_UNSPECIFIED", "EMAIL", "DNS", "URI", "IP_ADDRESS"),
        _RBAC + "Action": ("ALLOW", "DENY", "LOG"),
        _HCM + "CodecType": ("AUTO", "HTTP1", "HTTP2", "HTTP3"),
        _HCM + "ForwardClientCertDetails": ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET"),
        _CLUSTER + "DiscoveryType": ("STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST"),
    },
    messages={
        **_CORE_MESSAGES,
        **_LOG_MESSAGES,
        **_ENDPOINT_MESSAGES,
        **_ROUTE_MESSAGES,
        **_TLS_MESSAGES,
        **_RBAC_MESSAGES,
        **_STATE_MESSAGES,
        **_FILTER_MESSAGES,
        **_CLUSTER_MESSAGES,
    },
)


@cache
def _message_classes() -> dict[str, type[Any]]:
    return dict(build(_SCHEMA))


def encode_configuration(message: str, form: dict[str, object]) -> bytes:
    """The bytes of a `message` (its full name) in Envoy's JSON `form`. Equal forms give equal bytes.

    Raises ConfigurationError for a field, a value or a `@type` that the table does not know: what Envoy would never
    be told must not be left out silently.
    """
    classes = _message_classes()
    filled = classes[message]()
    try:
        json_format.ParseDict(form, filled, descriptor_pool=filled.DESCRIPTOR.file.pool)
    except json_format.ParseError as error:
        raise ConfigurationError(f"{message} {form.get('name', '')!r}: {error}") from error
    encoded: bytes = filled.SerializeToString(deterministic=True)
    return encoded
