"""Keys of people, in files: PEM, on P-256 or Ed25519, with a passphrase where they have one."""

from __future__ import annotations

import getpass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from attestation import keys
from attestation.errors import InvalidInput
from attestation.keys import SigningKey, VerifyingKey
from policies.model import dialect


def private(path: Path) -> SigningKey:
    """Asks for the passphrase where there is one. Raises InvalidInput."""
    key = _key(path)
    if isinstance(key, VerifyingKey):
        raise InvalidInput("this is the public half of a key", where=str(path), mend="Signing takes the private one.")
    if not isinstance(key, SigningKey):
        raise _no_key(path)
    keys.verifying_from_der(keys.public_der(key.public_key()))  # which refuses a curve that nobody here can check
    return key


def public(path: Path) -> VerifyingKey:
    """Of a private key its public half. Raises InvalidInput."""
    key = _key(path)
    half = key.public_key() if isinstance(key, SigningKey) else key
    if not isinstance(half, VerifyingKey):
        raise _no_key(path)
    return half


def _key(path: Path) -> object:
    content = dialect.read_text(path).encode()
    try:
        if b"-----BEGIN PUBLIC KEY-----" in content:
            return serialization.load_pem_public_key(content)
        locked = b"ENCRYPTED" in content
        password = getpass.getpass(f"passphrase of {path}: ").encode() if locked else None
        return serialization.load_pem_private_key(content, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path) from error


def _no_key(path: Path) -> InvalidInput:
    mend = "Make one with `openssl genpkey -algorithm ed25519`."
    return InvalidInput("this is no key on P-256 or Ed25519, or the passphrase is wrong", where=str(path), mend=mend)
