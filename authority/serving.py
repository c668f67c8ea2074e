"""The authority's own face: a TLS 1.3 socket under its reserved ID, with a certificate that is renewed in time."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric import ec

from authority.issuer import ca as authorities
from authority.issuer import leaf
from authority.issuer.ca import Ca

LIFETIME = timedelta(hours=24)


class Serving:
    """hosts: names and addresses that it goes by, besides its reserved ID."""

    def __init__(self, ca: Ca, trust_domain: str, hosts: Sequence[str] = ()) -> None:
        self._hosts = hosts
        self._ca = ca
        self._trust_domain = trust_domain
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3

    def renew(self, now: float) -> float:
        """A new key and certificate for connections from now on. Returns the seconds until half of it is over.

        now: Unix seconds. Raises Unavailable when the CA has ended.
        """
        start = authorities.utc(now)
        end = min(start + LIFETIME, self._ca.intermediate.not_valid_after_utc)
        key = ec.generate_private_key(ec.SECP256R1())
        begins = start - authorities.BACKDATE
        chain = leaf.serving(key.public_key(), self._trust_domain, begins, end, self._ca, self._hosts)
        _load(self.context, authorities.key_pem(key) + chain)
        return max((end - start).total_seconds() / 2, 1.0)


def _load(context: ssl.SSLContext, pem: str) -> None:
    """The ssl module reads files only; this one exists in memory."""
    descriptor = os.memfd_create("serving", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
