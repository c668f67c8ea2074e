"""How Envoy is told to reach the xDS server, and to speak mutual TLS with what it gets there (as JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xds.messages import TYPE_PREFIX
from xds.resources.secrets import san_matchers

XDS_CLUSTER = "xds_cluster"
_TLS = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3."
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class SecretNames:
    """The names under which Envoy asks for our certificate and for the authorities to trust."""

    certificate: str = "default"
    validation: str = "ROOTCA"


@dataclass(frozen=True, slots=True)
class Identities:
    """URI names that a peer's certificate may carry; one match suffices."""

    exact: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    def matchers(self) -> list[Json]:
        """The matchers as Envoy has them."""
        return san_matchers(self.exact, self.prefixes)

    def admit(self, uri: str) -> bool:
        """Whether a certificate with this name would do."""
        return uri in self.exact or uri.startswith(self.prefixes)

    def __bool__(self) -> bool:
        """Whether anyone is named. Nobody named means anybody to Envoy."""
        return bool(self.exact or self.prefixes)


def config_source(initial_fetch_timeout: str) -> Json:
    """The one way to every resource. All uses must be byte-identical, or Envoy makes a second secret provider
    that is never filled. The short back-off brings Envoy back in a fraction of a second when the server restarts.
    """
    return {
        "resource_api_version": "V3",
        "initial_fetch_timeout": initial_fetch_timeout,
        "api_config_source": incremental_stream(),
    }


def incremental_stream() -> Json:
    """An incremental stream to the server, for one type or for all."""
    retry = {"retry_back_off": {"base_interval": "0.02s", "max_interval": "0.2s"}}
    return {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": retry}}],
    }


def aggregated_source() -> Json:
    """The way to every resource where one stream brings them all: never for a static cluster, Envoy crashes on it."""
    return {"resource_api_version": "V3", "initial_fetch_timeout": "0s", "ads": {}}


def xds_cluster(socket: Path) -> Json:
    """The static cluster that every way leads to."""
    return {
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": TYPE_PREFIX + HTTP_OPTIONS,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": load_assignment(XDS_CLUSTER, {"pipe": {"path": str(socket)}}),
    }


def load_assignment(cluster: str, *addresses: Json, unfit: Sequence[Json] = ()) -> Json:
    """The endpoints of a cluster; none, and it reaches nobody. `unfit`: those that are there, but get nothing."""
    endpoints: list[Json] = [{"endpoint": {"address": address}} for address in addresses]
    endpoints += [{"endpoint": {"address": address}, "health_status": "UNHEALTHY"} for address in unfit]
    if not endpoints:
        return {"cluster_name": cluster}
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]}


def downstream_tls(source: Json, names: SecretNames, callers: Identities, alpn: list[str]) -> Json:
    """Mutual TLS towards callers. No session is resumed, since resumption skips the check of the certificate."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TLS + "DownstreamTlsContext",
            "require_client_certificate": True,
            "disable_stateless_session_resumption": True,
            "disable_stateful_session_resumption": True,
            "common_tls_context": {
                **_common(source, names, callers),
                "alpn_protocols": alpn,
            },
        },
    }


def upstream_tls(source: Json, names: SecretNames, peer: Identities) -> Json:
    """Mutual TLS towards one peer, which must present one of its names."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TLS + "UpstreamTlsContext",
            "max_session_keys": 0,
            "common_tls_context": _common(source, names, peer),
        },
    }


def _common(source: Json, names: SecretNames, peer: Identities) -> Json:
    """The trusted authorities come from one secret for all peers; the names are static here, each peer its own."""
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificate_sds_secret_configs": [{"name": names.certificate, "sds_config": source}],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": peer.matchers()},
            "validation_context_sds_secret_config": {"name": names.validation, "sds_config": source},
        },
    }


def seconds(value: float) -> str:
    """A duration as Envoy's JSON writes it."""
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"
