"""Signed reference values: who vouches for a file, by a signature that lies beside it.

`web.yaml.jws` is a JWS over the bytes of `web.yaml`, detached (RFC 7515, appendix F): the file stays what people read
and compare. One signature is for the whole file; what has changed in it since was signed by nobody.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from attestation import jws, keys
from attestation.errors import InvalidConfiguration, InvalidInput, MalformedResult
from attestation.keys import SigningKey, VerifyingKey

KIND = "proofbeat-references+jws"
"""The signature's `typ`: no token of another purpose is one."""

SUFFIX = ".jws"
_MOST_BYTES = 4096


def beside(file: Path) -> Path:
    """Where a file's signature is."""
    return file.with_name(file.name + SUFFIX)


def sign(content: bytes, key: SigningKey) -> str:
    """The detached token for a file's bytes."""
    header, _, signature = jws.sign(content, key, kind=KIND).split(".")
    return f"{header}..{signature}"


def signed_by(content: bytes, token: str, known: Sequence[VerifyingKey]) -> VerifyingKey | None:
    """Which of these keys signed exactly these bytes; None where none of them did."""
    header, dots, signature = token.strip().partition("..")
    payload = base64.urlsafe_b64encode(content).rstrip(b"=").decode()
    for key in known if dots else ():
        try:
            jws.open_signed(f"{header}.{payload}.{signature}", key, kind=KIND)
        except MalformedResult:
            continue
        return key
    return None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count."""

    known: tuple[VerifyingKey, ...]

    def check(self, file: Path, content: bytes, where: str) -> None:
        """Raises InvalidConfiguration unless the bytes of this file are signed. where: what in it has to be."""
        signature = beside(file)
        try:
            with signature.open("rb") as opened:
                token = opened.read(_MOST_BYTES + 1).decode("ascii", "replace")
        except OSError as error:
            raise InvalidConfiguration(
                f"reference values that nobody has signed: {signature.name} cannot be read ({error.strerror})",
                where=where,
                mend=f"Have it signed: proofbeat references sign --key KEY {file.name}",
            ) from error
        if signed_by(content, token, self.known) is None:
            raise InvalidConfiguration(
                f"reference values that no trusted key has signed as they are: {signature.name} is not theirs",
                where=where,
                mend="See what was changed since; then have it signed anew.",
            )

    def bounded(self, expires: int | None, where: str) -> None:
        """Raises InvalidConfiguration for reference values that never expire.

        A signature does not say that a file is the latest: an old one is good again with its own, until it expires.
        """
        if expires is None:
            raise InvalidConfiguration(
                "signed reference values that never expire: an old file could be put back for ever",
                where=where,
                mend="State spec.expires, as far ahead as the next release will be; then have it signed anew.",
            )


def trusted(paths: Sequence[Path]) -> Trust:
    """The public keys in these files, PEM. Raises InvalidConfiguration."""
    return Trust(tuple(map(_public, paths)))


def demanded(paths: Sequence[Path]) -> Trust | None:
    """As `trusted`; None where no file is named: nobody has to have signed anything."""
    return trusted(paths) if paths else None


def _public(path: Path) -> VerifyingKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
        return keys.verifying_from_der(
            key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    except OSError as error:
        raise InvalidConfiguration(
            f"the key cannot be read: {error.strerror}", where=str(path), mend="Check the path and its permissions."
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidInput) as error:
        raise InvalidConfiguration(
            "this is no public key on P-256 or Ed25519",
            where=str(path),
            mend="Write the public half of a key there: openssl pkey -pubout.",
        ) from error
