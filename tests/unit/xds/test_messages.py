"""Our messages mean to Envoy what an independent implementation of its API says they mean."""

from __future__ import annotations

import datetime

import pytest
from envoy_data_plane.envoy.config.core.v3 import Node, TypedExtensionConfig
from envoy_data_plane.envoy.config.rbac.v3 import RbacAction
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac as HttpRbac
from envoy_data_plane.envoy.extensions.filters.network.rbac.v3 import Rbac as TcpRbac
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import Secret, SubjectAltNameMatcherSanType
from envoy_data_plane.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from envoy_data_plane.google.rpc import Status

from xds.errors import GrpcStatus, StreamError
from xds.ledger import Response
from xds.messages import DeltaRequest, SotwRequest, decode_delta, decode_sotw, encode_discovery
from xds.resources.ecds import EXTENSION_CONFIG_TYPE, extension_config
from xds.resources.rbac import http_allow_all, http_deny_all, tcp_deny_all
from xds.resources.secrets import SECRET_TYPE, tls_certificate, validation_context
from xds.services import encode_response
from xds.snapshot import Resource

_PREFIX_BYTES = 5


def test_a_full_delta_request_is_read() -> None:
    request = DeltaDiscoveryRequest(
        node=Node(id="n"),
        type_url="t",
        resource_names_subscribe=["a", "b"],
        resource_names_unsubscribe=["c"],
        initial_resource_versions={"a": "1"},
        response_nonce="7",
        error_detail=Status(code=3, message="no"),
    )
    assert decode_delta(bytes(request)) == DeltaRequest("t", ("a", "b"), ("c",), {"a": "1"}, "7", "no")


def test_a_full_sotw_request_is_read() -> None:
    request = DiscoveryRequest(
        version_info="1",
        node=Node(id="n"),
        resource_names=["a"],
        type_url="t",
        response_nonce="7",
        error_detail=Status(code=3, message="no"),
    )
    assert decode_sotw(bytes(request)) == SotwRequest("t", ("a",), "1", "7", "no")


def test_an_error_without_a_text_is_still_a_rejection() -> None:
    assert decode_delta(bytes(DeltaDiscoveryRequest(error_detail=Status()))).rejection == ""
    assert decode_delta(bytes(DeltaDiscoveryRequest())).rejection is None
    assert decode_sotw(bytes(DiscoveryRequest(error_detail=Status()))).rejection == ""
    assert decode_sotw(bytes(DiscoveryRequest())).rejection is None


def test_our_requests_are_read_by_the_other_side() -> None:
    encoded = encode_discovery(
        "DeltaDiscoveryRequest",
        type_url="t",
        resource_names_subscribe=["a"],
        initial_resource_versions={"a": "1"},
        error_detail={"code": 3, "message": "no"},
    )
    parsed = DeltaDiscoveryRequest.parse(encoded)
    assert parsed.resource_names_subscribe == ["a"]
    assert parsed.initial_resource_versions == {"a": "1"}
    assert parsed.error_detail == Status(code=3, message="no")


@pytest.mark.parametrize("decode", [decode_delta, decode_sotw])
def test_malformed_bytes_end_the_stream_with_internal(decode: object) -> None:
    assert callable(decode)
    with pytest.raises(StreamError) as raised:
        decode(b"\xff\xff\xff")
    assert raised.value.status is GrpcStatus.INTERNAL


def test_a_delta_response_carries_names_versions_lifetimes_content_and_removals() -> None:
    kept = Resource.of("type.googleapis.com/t", "a", b"A", ttl=1.25)
    forever = Resource.of("type.googleapis.com/t", "b", b"B")
    response = Response("type.googleapis.com/t", "v", "n", 1, (kept, forever), ("gone",))
    parsed = DeltaDiscoveryResponse.parse(encode_response(response, delta=True)[_PREFIX_BYTES:])
    assert (parsed.system_version_info, parsed.nonce, parsed.type_url) == ("v", "n", "type.googleapis.com/t")
    assert parsed.removed_resources == ["gone"]
    first, second = parsed.resources
    assert (first.name, first.version, first.ttl) == ("a", kept.version, datetime.timedelta(seconds=1.25))
    assert first.resource is not None
    assert (first.resource.type_url, first.resource.value) == ("type.googleapis.com/t", b"A")
    assert (second.name, second.ttl) == ("b", None)


def test_a_sotw_response_carries_version_and_content() -> None:
    resource = Resource.of("type.googleapis.com/t", "a", b"A")
    response = Response("type.googleapis.com/t", "v", "n", 1, (resource,))
    parsed = DiscoveryResponse.parse(encode_response(response, delta=False)[_PREFIX_BYTES:])
    assert (parsed.version_info, parsed.nonce, parsed.type_url) == ("v", "n", "type.googleapis.com/t")
    assert [(r.type_url, r.value) for r in parsed.resources] == [("type.googleapis.com/t", b"A")]


def test_a_tls_certificate_holds_chain_and_key() -> None:
    secret = Secret.parse(tls_certificate("default", b"CHAIN", b"KEY").body)
    assert secret.name == "default"
    assert secret.tls_certificate is not None
    assert secret.tls_certificate.certificate_chain is not None
    assert secret.tls_certificate.private_key is not None
    assert secret.tls_certificate.certificate_chain.inline_bytes == b"CHAIN"
    assert secret.tls_certificate.private_key.inline_bytes == b"KEY"


def test_a_validation_context_holds_authorities_revocations_and_uri_names() -> None:
    resource = validation_context(
        "ROOTCA",
        b"CA",
        san_exact=["spiffe://a/b"],
        san_prefix=["spiffe://a/"],
        crl_pem=b"CRL",
        only_leaf_crl=True,
    )
    context = Secret.parse(resource.body).validation_context
    assert context is not None
    assert context.trusted_ca is not None
    assert context.crl is not None
    assert (context.trusted_ca.inline_bytes, context.crl.inline_bytes) == (b"CA", b"CRL")
    assert context.only_verify_leaf_cert_crl
    exact, prefix = context.match_typed_subject_alt_names
    assert exact.san_type == prefix.san_type == SubjectAltNameMatcherSanType.URI
    assert exact.matcher is not None
    assert prefix.matcher is not None
    assert (exact.matcher.exact, prefix.matcher.prefix) == ("spiffe://a/b", "spiffe://a/")


def test_a_denial_is_a_policy_whose_name_is_the_reason() -> None:
    delivered = TypedExtensionConfig.parse(extension_config("f", http_deny_all("why")).body)
    assert delivered.name == "f"
    assert delivered.typed_config is not None
    assert delivered.typed_config.type_url.endswith("filters.http.rbac.v3.RBAC")
    rules = HttpRbac.parse(delivered.typed_config.value).rules
    assert rules is not None
    assert rules.action == RbacAction.DENY
    policy = rules.policies["why"]
    assert [p.any for p in policy.permissions] == [True]
    assert [p.any for p in policy.principals] == [True]


def test_an_allowance_allows_everything() -> None:
    rules = HttpRbac.parse(http_allow_all().body).rules
    assert rules is not None
    assert rules.action == RbacAction.ALLOW
    assert [p.any for p in rules.policies["allow"].principals] == [True]


def test_a_tcp_denial_has_the_statistics_prefix_that_envoy_demands() -> None:
    rbac = TcpRbac.parse(tcp_deny_all("why").body)
    assert rbac.stat_prefix
    assert rbac.rules is not None
    assert list(rbac.rules.policies) == ["why"]


def test_resource_types_are_those_that_envoy_asks_for() -> None:
    assert SECRET_TYPE == "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    assert EXTENSION_CONFIG_TYPE == "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
