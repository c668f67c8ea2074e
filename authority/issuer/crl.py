"""The list of certificates that are void before their end (RFC 5280 section 5), for peers' validation contexts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from authority.issuer.ca import BACKDATE, Ca


@dataclass(frozen=True, slots=True)
class Revoked:
    """since: whole seconds."""

    serial: int
    since: datetime


def sign(revoked: Iterable[Revoked], number: int, made: datetime, ca: Ca) -> bytes:
    """PEM, signed by the intermediate. number: of the list, never lower. made: whole seconds.

    nextUpdate is the intermediate's own end, and not some days ahead: Envoy takes nobody's certificate once its CRL
    has run out, so a shorter one would close the whole mesh when the authority stays away. It is backdated as leaves
    are, for the same clocks. The same list is the same bytes.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.intermediate.subject)
        .last_update(max(made - BACKDATE, ca.intermediate.not_valid_before_utc))
        .next_update(ca.intermediate.not_valid_after_utc)
        .add_extension(ca.identifier, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(each.since).build()
        builder = builder.add_revoked_certificate(entry)
    signed = builder.sign(ca.key, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(serialization.Encoding.PEM)
