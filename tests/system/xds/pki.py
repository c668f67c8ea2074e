"""A throw-away authority and the certificates the tests need."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Leaf:
    chain_pem: bytes
    key_pem: bytes

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.chain_pem)

    @property
    def fingerprint(self) -> str:
        """As Envoy writes it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


class Authority:
    """issued_by: a root, for one that issues in its name; leaves then carry both in their chain but for the root."""

    def __init__(self, name: str, issued_by: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = issued_by or self
        self._certificate = (
            _builder(self._name, issuer._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer._key, hashes.SHA256())
        )
        pem = self._certificate.public_bytes(serialization.Encoding.PEM)
        self.bundle_pem: bytes = pem if issued_by is None else issued_by.bundle_pem
        self._between = b"" if issued_by is None else pem

    def crl(self, *revoked: Leaf, valid_for: float = 3600.0) -> bytes:
        """PEM of the list of those that are revoked; its next update is due in so many seconds."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - _HOUR)
            .next_update(now + datetime.timedelta(seconds=valid_for))
        )
        for leaf in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(leaf.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - _HOUR).build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def leaf(self, uri: str, instance: str | None = None, valid_for: datetime.timedelta = _HOUR) -> Leaf:
        """instance: goes into the subject, as OU."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(_subject(instance), self._name, key.public_key(), valid_for)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(
            certificate.public_bytes(serialization.Encoding.PEM) + self._between,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _subject(instance: str | None) -> x509.Name:
    if instance is None:
        return x509.Name([])
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Proofbeat"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, instance),
        ]
    )


def client_context(leaf: Leaf, trusted_pem: bytes, folder: Path) -> ssl.SSLContext:
    """A TLS client that presents `leaf` and trusts `trusted_pem`, whatever the host name."""
    context = ssl.create_default_context(cadata=trusted_pem.decode())
    context.check_hostname = False
    return _presenting(leaf, context, folder)


def server_context(leaf: Leaf, trusted_pem: bytes, folder: Path) -> ssl.SSLContext:
    """A TLS server that presents `leaf` and serves whom `trusted_pem` vouches for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=trusted_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return _presenting(leaf, context, folder)


def _presenting(leaf: Leaf, context: ssl.SSLContext, folder: Path) -> ssl.SSLContext:
    chain, key = folder / "leaf.pem", folder / "leaf.key"
    chain.write_bytes(leaf.chain_pem)
    key.write_bytes(leaf.key_pem)
    context.load_cert_chain(chain, key)
    return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid_for: datetime.timedelta = _HOUR
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HOUR)
        .not_valid_after(now + valid_for)
    )
