"""TLS secrets for Envoy's secret discovery (envoy.extensions.transport_sockets.tls.v3.Secret)."""

from __future__ import annotations

from collections.abc import Iterable

from xds.messages import SECRET, encode, message_classes
from xds.snapshot import Resource, type_url

SECRET_TYPE = type_url(SECRET)


def tls_certificate(name: str, chain_pem: bytes, key_pem: bytes) -> Resource:
    """A certificate chain, leaf first, with its private key."""
    certificate = {
        "certificate_chain": {"inline_bytes": chain_pem},
        "private_key": {"inline_bytes": key_pem},
    }
    return Resource.of(SECRET_TYPE, name, encode(SECRET, name=name, tls_certificate=certificate))


def chain_of(body: bytes) -> bytes:
    """The chain in the body of one of our certificates, PEM; empty for another secret."""
    chain: bytes = message_classes()[SECRET].FromString(body).tls_certificate.certificate_chain.inline_bytes
    return chain


def validation_context(
    name: str,
    bundle_pem: bytes,
    *,
    san_exact: Iterable[str] = (),
    san_prefix: Iterable[str] = (),
    crl_pem: bytes | None = None,
    only_leaf_crl: bool = False,
) -> Resource:
    """The authorities trusted for peer certificates, and optionally which URI names a peer may present.

    Any one of the names suffices. Where Envoy combines this secret with a static validation context (as
    xds.bootstrap has it), it merges the two lists, which widens both: give no names here then. With a CRL, Envoy
    wants one for every authority in the chain unless `only_leaf_crl`.
    """
    context: dict[str, object] = {
        "trusted_ca": {"inline_bytes": bundle_pem},
        "match_typed_subject_alt_names": san_matchers(san_exact, san_prefix),
    }
    if crl_pem is not None:
        context["crl"] = {"inline_bytes": crl_pem}
        context["only_verify_leaf_cert_crl"] = only_leaf_crl
    return Resource.of(SECRET_TYPE, name, encode(SECRET, name=name, validation_context=context))


def san_matchers(exact: Iterable[str], prefixes: Iterable[str]) -> list[dict[str, object]]:
    """Matchers of URI names, in the form that both messages and Envoy's JSON take."""
    patterns = [("exact", uri) for uri in exact] + [("prefix", prefix) for prefix in prefixes]
    return [{"san_type": "URI", "matcher": {kind: value}} for kind, value in patterns]
