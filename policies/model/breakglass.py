"""Who may break the glass, how many of them it takes, and for how long: what `spec.breakGlass` says."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from pydantic import BeforeValidator, Field, field_validator

from attestation import keys
from attestation.digests import Digest
from attestation.errors import InvalidInput
from attestation.keys import VerifyingKey
from policies.model.dialect import Duration, Strict
from policies.model.strictness import CommonBy, Least, Most

_PEM = "-----BEGIN PUBLIC KEY-----"


def _public_key(value: object) -> object:
    """Base64 of DER, however it was written."""
    if not isinstance(value, str):
        raise ValueError("a public key is text: PEM, or base64 of DER")
    try:
        der = _from_pem(value) if value.lstrip().startswith(_PEM) else base64.b64decode(value, validate=True)
        keys.verifying_from_der(der)
    except InvalidInput as error:
        raise ValueError(error.sentence) from error
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("this is no public key, neither PEM nor base64 of DER") from error
    return base64.b64encode(der).decode()


def _from_pem(text: str) -> bytes:
    key = serialization.load_pem_public_key(text.encode())
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class Operator(Strict):
    """Somebody whose signature counts. name: several keys of one name are one person's, and count once.

    key: public, on P-256 or Ed25519; written as PEM (`openssl pkey -pubout`) or as base64 of its DER.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.@_+-]{0,63}$")
    key: Annotated[str, BeforeValidator(_public_key)]

    @property
    def verifying(self) -> VerifyingKey:
        return keys.verifying_from_der(base64.b64decode(self.key))

    def __lt__(self, other: Operator) -> bool:
        return (self.key, self.name) < (other.key, other.name)


class BreakGlassRules(Strict):
    """operators: who may sign; nobody unless somebody says so, and an empty list forbids it to everybody below.

    quorum: how many of them must, each by another name. longest: from an order's beginning to its end.
    """

    operators: Annotated[tuple[Operator, ...], CommonBy("key")] = Field(default=(), max_length=32)
    quorum: Annotated[int, Most()] = Field(default=2, ge=1, le=32)
    longest: Annotated[Duration, Least()] = 3600.0

    @field_validator("operators")
    @classmethod
    def _distinct(cls, operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
        twice = Counter(each.key for each in operators)
        for each in operators:
            if twice[each.key] > 1:
                raise ValueError(f"the key of {each.name} stands twice: nobody is two operators")
        return operators

    def attainable(self) -> None:
        """Raises ValueError where more must sign than may."""
        people = len({each.name for each in self.operators})
        if 0 < people < self.quorum:
            raise ValueError(f"{self.quorum} operators must sign and {people} may")

    @property
    def by_key(self) -> Mapping[Digest, Operator]:
        """Thumbprint -> operator."""
        return {keys.thumbprint(each.verifying): each for each in self.operators}
