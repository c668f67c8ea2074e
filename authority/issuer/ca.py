"""The certification authority: a root and one intermediate, P-256, in a folder of files with mode 0600."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestation.errors import InvalidConfiguration

DEMO_PREFIX = "DEMO"
BACKDATE = timedelta(seconds=30)
"""notBefore lies this far back, for peers whose clocks run behind."""

_ROOT, _INTERMEDIATE, _RESULTS = "root", "intermediate", "results"


@dataclass(frozen=True, slots=True)
class Ca:
    """root: the trust bundle. intermediate, key: what signs leaves. result_key: what signs EARs, and nothing else.

    identifier: how leaves name the key that signed them.
    """

    root: x509.Certificate
    intermediate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    result_key: ec.EllipticCurvePrivateKey
    identifier: x509.AuthorityKeyIdentifier

    @property
    def bundle(self) -> str:
        """PEM of the root."""
        return pem(self.root)

    @property
    def name(self) -> str:
        return str(self.root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def generate(folder: Path, name: str, lifetime: float, *, now: datetime) -> Ca:
    """Makes root, intermediate and result key in `folder`. lifetime: seconds, of both certificates.

    Raises InvalidConfiguration when the folder holds a CA already: nothing is ever overwritten.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if exists(folder):
        raise InvalidConfiguration("a CA exists already", where=str(folder), mend="Choose another folder.")
    root_key, key, result_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    end = now + timedelta(seconds=lifetime)
    root_name, intermediate_name = _named(name), _named(f"{name} intermediate")
    root = _authority(root_name, root_name, root_key.public_key(), root_key, now, end, path_length=1)
    intermediate = _authority(intermediate_name, root_name, key.public_key(), root_key, now, end, path_length=0)
    for stem, private in ((_ROOT, root_key), (_INTERMEDIATE, key), (_RESULTS, result_key)):
        _write(folder / f"{stem}.key", key_pem(private))
    _write(folder / f"{_ROOT}.pem", pem(root))
    _write(folder / f"{_INTERMEDIATE}.pem", pem(intermediate))
    return Ca(root, intermediate, key, result_key, _identifier(key))


def exists(folder: Path) -> bool:
    return any((folder / f"{stem}.key").exists() for stem in (_ROOT, _INTERMEDIATE))


def load(folder: Path, *, allow_demo: bool) -> Ca:
    """The CA in a folder. The root's key is not read: leaves do not need it, and it may lie elsewhere.

    Raises InvalidConfiguration for missing or unreadable files, keys that others can read, and a demo's CA.
    """
    try:
        root = x509.load_pem_x509_certificate((folder / f"{_ROOT}.pem").read_bytes())
        intermediate = x509.load_pem_x509_certificate((folder / f"{_INTERMEDIATE}.pem").read_bytes())
        key, result_key = _key(folder / f"{_INTERMEDIATE}.key"), _key(folder / f"{_RESULTS}.key")
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(
            f"the CA cannot be read: {error}", where=str(folder), mend="Name an empty folder to have one made."
        ) from error
    ca = Ca(root, intermediate, key, result_key, _identifier(key))
    if ca.name.startswith(DEMO_PREFIX) and not allow_demo:
        raise InvalidConfiguration(
            f"{ca.name!r} is a demo's CA; its keys are no secret",
            where=str(folder),
            mend="Name an empty folder to have one made.",
        )
    if intermediate.public_key() != ca.key.public_key():
        raise InvalidConfiguration("key and certificate of the intermediate do not belong together", where=str(folder))
    return ca


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """PKCS#8, unencrypted: for a file with mode 0600, or a socket's TLS context."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    now: datetime,
    end: datetime,
    *,
    path_length: int,
) -> x509.Certificate:
    """A CA certificate by the X.509-SVID rules: cA, keyCertSign and cRLSign critical, no URI name."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_identifier(signer), critical=False)
        .sign(signer, hashes.SHA256())
    )


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.stat().st_mode & 0o077:
        raise InvalidConfiguration("others can read this key", where=str(path), mend=f"chmod 600 {path}")
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidConfiguration("no P-256 key", where=str(path))
    return key


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def utc(unix_seconds: float) -> datetime:
    """Whole seconds, as certificates keep them."""
    return datetime.fromtimestamp(int(unix_seconds), UTC)
