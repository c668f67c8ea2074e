"""Leaves by the X.509-SVID rules (X509-SVID section 4): one URI name, both extended usages, the result inside.

Signatures are deterministic: the leaf of a round that is answered again is the same certificate, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from attestation import breakglass, cmw
from attestation.errors import Unavailable
from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from authority.issuer import ca as authorities
from authority.issuer.ca import Ca

_ORGANISATION = "Proofbeat"


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a leaf says. not_before, not_after: whole seconds; the end is the lease's. ear: carried as CMW.

    break_glass: the id of the order that let it through, for whoever does not look into the EAR; empty for one earned.
    """

    identity: SpiffeId
    instance: InstanceId
    public_key: ec.EllipticCurvePublicKey
    serial: int
    not_before: datetime
    not_after: datetime
    ear: str
    break_glass: str = ""


def sign(leaf: Leaf, ca: Ca) -> str:
    """The chain, leaf first, as PEM. The subject's OU is the instance, which Envoy can match.

    Raises Unavailable when the intermediate ends before the leaf would.
    """
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, leaf.instance.value),
        ]
    )
    builder = _svid(subject, leaf.identity, leaf.public_key, leaf.serial, ca)
    builder = builder.add_extension(cmw.extension(leaf.ear), critical=False)
    if leaf.break_glass:
        builder = builder.add_extension(breakglass.mark(leaf.break_glass), critical=False)
    return _chain(builder, leaf.not_before, leaf.not_after, ca)


def serving(
    public_key: ec.EllipticCurvePublicKey,
    trust_domain: str,
    start: datetime,
    end: datetime,
    ca: Ca,
    hosts: Sequence[str] = (),
) -> str:
    """The authority's own chain, under its reserved ID. hosts: names and addresses that it goes by besides, for those
    who know no SPIFFE IDs.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION)])
    serial = x509.random_serial_number()
    builder = _svid(subject, SpiffeId.authority(trust_domain), public_key, serial, ca, hosts)
    return _chain(builder, start, end, ca)


def _svid(
    subject: x509.Name,
    identity: SpiffeId,
    public_key: ec.EllipticCurvePublicKey,
    serial: int,
    ca: Ca,
    hosts: Sequence[str] = (),
) -> x509.CertificateBuilder:
    names = [x509.UniformResourceIdentifier(str(identity)), *map(_host, hosts)]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.intermediate.subject)
        .public_key(public_key)
        .serial_number(serial)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(_EXTENDED_USAGE, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(ca.identifier, critical=False)
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _chain(builder: x509.CertificateBuilder, start: datetime, end: datetime, ca: Ca) -> str:
    if end > ca.intermediate.not_valid_after_utc:
        raise Unavailable(
            "the intermediate CA ends before the certificate would",
            where="authority",
            mend="The operator has to renew the CA.",
        )
    # A certificate is never older than its issuer: right after a CA was made, backdating stops there.
    start = max(start, ca.intermediate.not_valid_before_utc)
    signed = builder.not_valid_before(start).not_valid_after(end)
    certificate = signed.sign(ca.key, hashes.SHA256(), ecdsa_deterministic=True)
    return authorities.pem(certificate) + authorities.pem(ca.intermediate)


_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_EXTENDED_USAGE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
