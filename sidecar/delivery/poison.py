"""Poison: a certificate and a trust bundle with which no handshake can succeed, made ready at start.

Taking a secret away changes nothing in Envoy (the old one keeps serving), and an invalid one is rejected (the old
one keeps serving): only a valid secret that nobody trusts closes. Key and authority are thrown away on the spot.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NAME = "proofbeat closed"


@dataclass(frozen=True, slots=True)
class Poison:
    """All PEM. bundle: an authority that signed nothing; chain: a certificate that no bundle leads to."""

    chain: bytes
    key: bytes
    bundle: bytes


def make(now: float) -> Poison:
    """now: seconds since the epoch. Valid from a day before for ten years: it is never to fail for its dates."""
    key = ec.generate_private_key(ec.SECP256R1())
    chain = _self_signed(key, now, authority=False)
    bundle = _self_signed(ec.generate_private_key(ec.SECP256R1()), now, authority=True)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Poison(chain, private, bundle)


def _self_signed(key: ec.EllipticCurvePrivateKey, now: float, *, authority: bool) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    instant = datetime.datetime.fromtimestamp(now, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(instant - datetime.timedelta(days=1))
        .not_valid_after(instant + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
