"""Stateless nonces: the authority recognises its own by a MAC and remembers none.

61 bytes: version 1, epoch 4, sequence 8, issue time 8 (Unix milliseconds), holder 16, random 8, MAC 16. The MAC is
HMAC-SHA256 over all before it, truncated to 128 bits (RFC 2104 section 5). The holder is a truncated digest of
instance and evidence key, so that somebody else's nonce is told apart from one that was never issued.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import StrEnum

from attestation import digests
from attestation.digests import Digest
from attestation.instance import InstanceId

SIZE = 61
RANDOM_SIZE = 8
KEY_SIZE = 32

_VERSION = 1
_BODY = struct.Struct(">BIQQ16s8s")
_MAC_SIZE = 16
_DOMAIN = b"proofbeat/nonce\0"


class NonceFault(StrEnum):
    """Why a nonce does not count."""

    FORGED = "forged"
    """This authority never issued it: wrong length, version or MAC."""
    EPOCH = "epoch"
    """Issued under keys that have been replaced since."""
    FOREIGN = "foreign"
    """Issued to another instance, or to the same under another evidence key."""
    STALE = "stale"
    """Issued too long ago."""
    EARLY = "early"
    """Issued in the future: the authority's clock went back."""


@dataclass(frozen=True, slots=True)
class NonceFacts:
    """What a genuine nonce says. issued_ms: Unix milliseconds by the authority's clock; leases count from it."""

    sequence: int
    issued_ms: int
    epoch: int
    holder: bytes


@dataclass(frozen=True, slots=True)
class NonceCheck:
    """facts: None when forged. faults: every one found."""

    facts: NonceFacts | None
    faults: tuple[NonceFault, ...]


def holder(instance: InstanceId, thumbprint: Digest) -> bytes:
    """16 bytes that name who a nonce is for."""
    return bytes.fromhex(digests.tagged("nonce-holder", instance.value.encode(), thumbprint.encode()))[:16]


def issue(key: bytes, to: bytes, *, sequence: int, issued_ms: int, epoch: int, random: bytes) -> bytes:
    """key: KEY_SIZE secret bytes. to: `holder`. random: RANDOM_SIZE fresh bytes."""
    body = _BODY.pack(_VERSION, epoch, sequence, issued_ms, to, random)
    return body + _mac(key, body)


def read(key: bytes, nonce: bytes) -> NonceFacts | None:
    """The facts of a nonce issued under this key, or None: it is forged."""
    if len(nonce) != SIZE:
        return None
    body = nonce[: _BODY.size]
    if not hmac.compare_digest(nonce[_BODY.size :], _mac(key, body)):
        return None
    version, epoch, sequence, issued_ms, to, _ = _BODY.unpack(body)
    return NonceFacts(sequence, issued_ms, epoch, to) if version == _VERSION else None


def check(key: bytes, nonce: bytes, by: bytes, *, epoch: int, now_ms: int, valid_ms: int) -> NonceCheck:
    """Every fault of a nonce that came from `by` (a `holder`) at now_ms. valid_ms: how long one lives."""
    facts = read(key, nonce)
    if facts is None:
        return NonceCheck(None, (NonceFault.FORGED,))
    found = {
        NonceFault.EPOCH: facts.epoch != epoch,
        NonceFault.FOREIGN: not hmac.compare_digest(facts.holder, by),
        NonceFault.STALE: now_ms - facts.issued_ms >= valid_ms,
        NonceFault.EARLY: facts.issued_ms > now_ms,
    }
    return NonceCheck(facts, tuple(fault for fault, holds in found.items() if holds))


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, _DOMAIN + body, hashlib.sha256).digest()[:_MAC_SIZE]
