"""TLS towards the authority: the chain holds under the bundle, and the certificate is the authority's own."""

from __future__ import annotations

import asyncio.sslproto
import ssl
from typing import Any

from attestation.errors import InvalidConfiguration
from attestation.spiffe import SpiffeId

_BUFFER = 16 * 1024


def shrink_buffers() -> None:
    """asyncio keeps 256 KiB a TLS connection for reading; 16 KiB, one TLS record, do as well (fleets notice).

    The one place where that is set, by both ends, for the whole process.
    """
    asyncio.sslproto.SSLProtocol.max_size = _BUFFER


def client_context(bundle: str, trust_domain: str) -> ssl.SSLContext:
    """Trusts a server only as spiffe://trust_domain/proofbeat/authority. bundle: PEM.

    The ID is checked as the last step of the handshake itself, so that not one byte of a request goes to a server
    that is somebody else, be its certificate ever so genuine. Raises InvalidConfiguration for a useless bundle.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=bundle)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidConfiguration(
            "no CA certificate in the trust bundle", where="authority.bundle", mend="It is a PEM file."
        ) from error
    context.sslobject_class = _demanding(SpiffeId.authority(trust_domain))
    return context


def _demanding(identity: SpiffeId) -> type[ssl.SSLObject]:
    """An SSLObject whose handshake fails unless the peer is `identity`."""

    class Demanding(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            found = _uri_names(self)
            if found != [str(identity)]:
                shown = ", ".join(found) or "no SPIFFE ID"
                raise ssl.SSLCertVerificationError(f"the server is {shown}, and not {identity}")

    return Demanding


def _uri_names(connection: ssl.SSLObject) -> list[str]:
    certificate: dict[str, Any] = connection.getpeercert() or {}
    return [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
