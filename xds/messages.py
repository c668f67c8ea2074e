"""The messages of the xDS protocol and of the resources served, with only the fields used here.

`node` is kept as opaque bytes: nothing is decided by it, and it is the largest part of a first request.
Field numbers are those of Envoy's v3 API (envoy/service/discovery/v3/discovery.proto and the resource protos), nested
messages carry their parent's name as a prefix, which the wire does not see;
the tests hold every message against an independent implementation, in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf.message import DecodeError

from xds.descriptors import Field, Schema, build
from xds.errors import GrpcStatus, StreamError

TYPE_PREFIX: Final = "type.googleapis.com/"
_DISCOVERY: Final = "envoy.service.discovery.v3."
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3."
_CORE: Final = "envoy.config.core.v3."
_RBAC: Final = "envoy.config.rbac.v3."
_MATCHER: Final = "xds.type.matcher.v3."
_XDS_EXTENSION: Final = "xds.core.v3.TypedExtensionConfig"

SECRET: Final = _TLS + "Secret"
TYPED_EXTENSION_CONFIG: Final = _CORE + "TypedExtensionConfig"
HTTP_RBAC: Final = "envoy.extensions.filters.http.rbac.v3.RBAC"
TCP_RBAC: Final = "envoy.extensions.filters.network.rbac.v3.RBAC"
RBAC_ACTION: Final = _RBAC + "Action"
FILTER_STATE_INPUT: Final = "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput"
LISTENER: Final = "envoy.config.listener.v3.Listener"
CLUSTER: Final = "envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = "envoy.config.endpoint.v3.ClusterLoadAssignment"
ROUTES: Final = "envoy.config.route.v3.RouteConfiguration"

_SCHEMA: Final = Schema(
    enums={
        _RBAC + "RBACAction": ("ALLOW", "DENY", "LOG"),
        _TLS + "SanType": ("SAN_TYPE_UNSPECIFIED", "EMAIL", "DNS", "URI", "IP_ADDRESS"),
    },
    messages={
        "google.rpc.Status": (Field(1, "code", "int32"), Field(2, "message", "string")),
        "envoy.type.matcher.v3.StringMatcher": (
            Field(1, "exact", "string", oneof="match_pattern"),
            Field(2, "prefix", "string", oneof="match_pattern"),
        ),
        _CORE + "DataSource": (Field(2, "inline_bytes", "bytes", oneof="specifier"),),
        TYPED_EXTENSION_CONFIG: (
            Field(1, "name", "string"),
            Field(2, "typed_config", "google.protobuf.Any"),
        ),
        _TLS + "TlsCertificate": (
            Field(1, "certificate_chain", _CORE + "DataSource"),
            Field(2, "private_key", _CORE + "DataSource"),
        ),
        _TLS + "SubjectAltNameMatcher": (
            Field(1, "san_type", "enum " + _TLS + "SanType"),
            Field(2, "matcher", "envoy.type.matcher.v3.StringMatcher"),
        ),
        _TLS + "CertificateValidationContext": (
            Field(1, "trusted_ca", _CORE + "DataSource"),
            Field(7, "crl", _CORE + "DataSource"),
            Field(14, "only_verify_leaf_cert_crl", "bool"),
            Field(15, "match_typed_subject_alt_names", _TLS + "SubjectAltNameMatcher", repeated=True),
        ),
        SECRET: (
            Field(1, "name", "string"),
            Field(2, "tls_certificate", _TLS + "TlsCertificate", oneof="type"),
            Field(4, "validation_context", _TLS + "CertificateValidationContext", oneof="type"),
        ),
        _RBAC + "Permission": (Field(3, "any", "bool", oneof="rule"),),
        _RBAC + "Principal": (Field(3, "any", "bool", oneof="identifier"),),
        _RBAC + "Policy": (
            Field(1, "permissions", _RBAC + "Permission", repeated=True),
            Field(2, "principals", _RBAC + "Principal", repeated=True),
        ),
        _RBAC + "RBAC": (
            Field(1, "action", "enum " + _RBAC + "RBACAction"),
            Field(2, "policies", _RBAC + "Policy", map=True),
        ),
        RBAC_ACTION: (Field(1, "name", "string"), Field(2, "action", "enum " + _RBAC + "RBACAction")),
        FILTER_STATE_INPUT: (Field(1, "key", "string"),),
        _XDS_EXTENSION: (Field(1, "name", "string"), Field(2, "typed_config", "google.protobuf.Any")),
        _MATCHER + "Matcher": (
            Field(2, "matcher_tree", _MATCHER + "MatcherMatcherTree", oneof="matcher_type"),
            Field(3, "on_no_match", _MATCHER + "MatcherOnMatch"),
        ),
        _MATCHER + "MatcherOnMatch": (
            Field(1, "matcher", _MATCHER + "Matcher", oneof="on_match"),
            Field(2, "action", _XDS_EXTENSION, oneof="on_match"),
        ),
        _MATCHER + "MatcherMatcherTree": (
            Field(1, "input", _XDS_EXTENSION),
            Field(2, "exact_match_map", _MATCHER + "MatcherMatcherTreeMatchMap", oneof="tree_type"),
        ),
        _MATCHER + "MatcherMatcherTreeMatchMap": (Field(1, "map", _MATCHER + "MatcherOnMatch", map=True),),
        HTTP_RBAC: (Field(1, "rules", _RBAC + "RBAC"), Field(4, "matcher", _MATCHER + "Matcher")),
        TCP_RBAC: (
            Field(1, "rules", _RBAC + "RBAC"),
            Field(3, "stat_prefix", "string"),
            Field(6, "matcher", _MATCHER + "Matcher"),
        ),
        _DISCOVERY + "DiscoveryRequest": (
            Field(1, "version_info", "string"),
            Field(2, "node", "bytes"),
            Field(3, "resource_names", "string", repeated=True),
            Field(4, "type_url", "string"),
            Field(5, "response_nonce", "string"),
            Field(6, "error_detail", "google.rpc.Status"),
        ),
        _DISCOVERY + "DiscoveryResponse": (
            Field(1, "version_info", "string"),
            Field(2, "resources", "google.protobuf.Any", repeated=True),
            Field(4, "type_url", "string"),
            Field(5, "nonce", "string"),
        ),
        _DISCOVERY + "Resource": (
            Field(1, "version", "string"),
            Field(2, "resource", "google.protobuf.Any"),
            Field(3, "name", "string"),
            Field(6, "ttl", "google.protobuf.Duration"),
        ),
        _DISCOVERY + "DeltaDiscoveryRequest": (
            Field(1, "node", "bytes"),
            Field(2, "type_url", "string"),
            Field(3, "resource_names_subscribe", "string", repeated=True),
            Field(4, "resource_names_unsubscribe", "string", repeated=True),
            Field(5, "initial_resource_versions", "string", map=True),
            Field(6, "response_nonce", "string"),
            Field(7, "error_detail", "google.rpc.Status"),
        ),
        _DISCOVERY + "DeltaDiscoveryResponse": (
            Field(1, "system_version_info", "string"),
            Field(2, "resources", _DISCOVERY + "Resource", repeated=True),
            Field(4, "type_url", "string"),
            Field(5, "nonce", "string"),
            Field(6, "removed_resources", "string", repeated=True),
        ),
    },
)


@dataclass(frozen=True, slots=True)
class SotwRequest:
    """A DiscoveryRequest. `rejection` is the text of `error_detail`, or None when there is none."""

    type_url: str
    names: tuple[str, ...] = ()
    version: str = ""
    nonce: str = ""
    rejection: str | None = None


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A DeltaDiscoveryRequest. `rejection` is the text of `error_detail`, or None when there is none."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] | None = None
    nonce: str = ""
    rejection: str | None = None


@cache
def message_classes() -> Mapping[str, type[Any]]:
    """The message classes by full name, built at the first use."""
    return build(_SCHEMA)


@cache
def _message_class(name: str) -> type[Any]:
    return message_classes()[name]


def encode(name: str, /, **fields: object) -> bytes:
    """Serialise a message of the schema; nested messages may be given as mappings. Equal input, equal bytes."""
    encoded: bytes = _message_class(name)(**fields).SerializeToString(deterministic=True)
    return encoded


def encode_discovery(name: str, /, **fields: object) -> bytes:
    """Serialise a discovery message by its short name. Encodings of parts of one message may be concatenated:
    protobuf defines that as merging them (protobuf.dev, encoding, "last one wins")."""
    return encode(_DISCOVERY + name, **fields)


def decode_sotw(data: bytes) -> SotwRequest:
    """Parse a DiscoveryRequest; raises StreamError(INTERNAL) on malformed bytes."""
    message = _decode("DiscoveryRequest", data)
    return SotwRequest(
        message.type_url,
        tuple(message.resource_names),
        message.version_info,
        message.response_nonce,
        message.error_detail.message if message.HasField("error_detail") else None,
    )


def decode_delta(data: bytes) -> DeltaRequest:
    """Parse a DeltaDiscoveryRequest; raises StreamError(INTERNAL) on malformed bytes."""
    message = _decode("DeltaDiscoveryRequest", data)
    return DeltaRequest(
        message.type_url,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions) or None,
        message.response_nonce,
        message.error_detail.message if message.HasField("error_detail") else None,
    )


def _decode(name: str, data: bytes) -> Any:
    try:
        return _message_class(_DISCOVERY + name).FromString(data)
    except DecodeError as malformed:
        raise StreamError(GrpcStatus.INTERNAL, f"{name}: {len(data)} bytes are not a valid message") from malformed
