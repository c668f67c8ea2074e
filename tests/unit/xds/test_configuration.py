"""Served listeners and clusters mean to Envoy what their JSON says, by an independent implementation's word."""

from __future__ import annotations

from typing import Any

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import ApiVersion
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    DownstreamTlsContext,
    SubjectAltNameMatcherSanType,
    TlsParametersTlsProtocol,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions

from xds import configuration, messages
from xds.configuration import encode_configuration
from xds.errors import ConfigurationError
from xds.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES

ADS = {"resource_api_version": "V3", "initial_fetch_timeout": "0.25s", "ads": {}}
PREFIX = "type.googleapis.com/"


def test_a_listener_arrives_field_by_field_through_every_nested_type() -> None:
    manager = {
        "@type": PREFIX + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "rds": {"config_source": ADS, "route_config_name": "routes"},
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "common_http_protocol_options": {"max_connection_duration": "3.5s"},
    }
    tls = {
        "@type": PREFIX + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "spiffe://a/b"}}]
                },
                "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": ADS},
            },
        },
    }
    form: dict[str, object] = {
        "name": "inbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 65535}},
        "filter_chains": [
            {
                "filters": [{"name": "hcm", "typed_config": manager}],
                "transport_socket": {"name": "tls", "typed_config": tls},
            }
        ],
    }
    listener = Listener.parse(encode_configuration(LISTENER, form))
    assert listener.name == "inbound"
    assert listener.address.socket_address.port_value == 65535
    (chain,) = listener.filter_chains
    found = HttpConnectionManager.parse(chain.filters[0].typed_config.value)
    assert found.stat_prefix == "in"
    assert found.rds.config_source.ads is not None
    assert found.rds.config_source.resource_api_version is ApiVersion.V3
    assert found.rds.config_source.initial_fetch_timeout.total_seconds() == 0.25
    assert found.forward_client_cert_details is HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET
    assert found.set_current_client_cert_details.uri
    assert found.common_http_protocol_options.max_connection_duration.total_seconds() == 3.5
    context = DownstreamTlsContext.parse(chain.transport_socket.typed_config.value)
    assert context.require_client_certificate is True
    assert context.disable_stateful_session_resumption
    assert context.common_tls_context.tls_params.tls_minimum_protocol_version is TlsParametersTlsProtocol.TLSv1_3
    combined = context.common_tls_context.combined_validation_context
    (matcher,) = combined.default_validation_context.match_typed_subject_alt_names
    assert (matcher.san_type, matcher.matcher.exact) == (SubjectAltNameMatcherSanType.URI, "spiffe://a/b")
    assert combined.validation_context_sds_secret_config.name == "ROOTCA"


def test_a_cluster_with_its_options_arrives() -> None:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    form: dict[str, object] = {
        "name": "db",
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {
                "@type": PREFIX + options,
                "common_http_protocol_options": {"max_requests_per_connection": 1},
                "use_downstream_protocol_config": {"http2_protocol_options": {}},
            }
        },
    }
    cluster = Cluster.parse(encode_configuration(CLUSTER, form))
    assert cluster.type is ClusterDiscoveryType.EDS
    assert cluster.eds_cluster_config.eds_config.ads is not None
    found = HttpProtocolOptions.parse(cluster.typed_extension_protocol_options[options].value)
    assert found.common_http_protocol_options.max_requests_per_connection == 1
    assert found.use_downstream_protocol_config.http2_protocol_options is not None


def test_routes_and_endpoints_arrive() -> None:
    routes = RouteConfiguration.parse(
        encode_configuration(
            ROUTES,
            {
                "name": "r",
                "virtual_hosts": [
                    {
                        "name": "v",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "0s"}}],
                    }
                ],
            },
        )
    )
    (route,) = routes.virtual_hosts[0].routes
    assert (route.match.prefix, route.route.cluster, route.route.timeout.total_seconds()) == ("/", "c", 0)
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "10.0.0.2", "port_value": 8443}}}}
    assignment = ClusterLoadAssignment.parse(
        encode_configuration(ENDPOINTS, {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint]}]})
    )
    assert assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address == "10.0.0.2"


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"name": "x", "filter_chainz": []}, "filter_chainz"),
        ({"name": "x", "filter_chains": [{"filters": [{"typed_config": {"@type": PREFIX + "a.B"}}]}]}, "a.B"),
        ({"name": "x", "address": {"socket_address": {"port_value": "many"}}}, "port"),
    ],
)
def test_what_the_table_does_not_know_is_refused_and_never_left_out(form: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        encode_configuration(LISTENER, form)


def test_equal_forms_give_equal_bytes() -> None:
    one: dict[str, object] = {"name": "c", "type": "STATIC", "connect_timeout": "1s"}
    assert encode_configuration(CLUSTER, one) == encode_configuration(CLUSTER, dict(reversed(one.items())))


def test_every_field_of_the_tables_has_the_number_that_envoys_api_gives_it() -> None:
    wrong = [
        f"{message}.{field.name} is {field.number}"
        for schema in (configuration._SCHEMA, messages._SCHEMA)
        for message, fields in schema.messages.items()
        for field in fields
        if (number := _number(message, field.name)) is not None and number != field.number
    ]
    assert wrong == []


def _number(message: str, field: str) -> int | None:
    """By envoy-data-plane; None for a nested message, whose name differs there."""
    import dataclasses
    import importlib

    package, name = message.rsplit(".", 1)
    module = importlib.import_module("envoy_data_plane." + package)
    found = getattr(module, {"RBAC": "Rbac"}.get(name, name), None)
    if found is None:
        return None
    numbers: dict[str, int] = {each.name: each.metadata["betterproto"].number for each in dataclasses.fields(found)}
    return numbers[field]
