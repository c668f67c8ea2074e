"""Digests: SHA-256, in hex on the outside, domain-separated wherever we hash a structure of our own."""

from __future__ import annotations

import hashlib

Digest = str
"""64 lower-case hex characters: SHA-256 of a file's content, or `tagged` of one of our structures."""


def of_content(content: bytes) -> Digest:
    """What `sha256sum` prints for these bytes."""
    return hashlib.sha256(content).hexdigest()


def tagged(domain: str, *parts: bytes) -> Digest:
    """Digest of `parts` under a domain, each part length-prefixed, so that no two structures collide."""
    state = hashlib.sha256(b"proofbeat/" + domain.encode() + b"\0")
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()


def well_formed(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)
