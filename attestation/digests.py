"""Digests: SHA-256, in hex on the outside, domain-separated wherever we hash a structure of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

Digest = str
"""64 lower-case hex characters: SHA-256 of a file's content, or `tagged` of one of our structures."""


def of_content(content: bytes) -> Digest:
    """What `sha256sum` prints for these bytes."""
    return hashlib.sha256(content).hexdigest()


def tagged(domain: str, *parts: bytes) -> Digest:
    """Digest of `parts` under a domain, each part length-prefixed, so that no two structures collide."""
    state = _begun(domain)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()


class Passing:
    """`tagged` of a single part that passes by in pieces. size: bytes of them all."""

    def __init__(self, domain: str, size: int) -> None:
        self._state = _begun(domain)
        self._state.update(size.to_bytes(8, "big"))

    def through(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces as they are."""
        for piece in pieces:
            self._state.update(piece)
            yield piece

    @property
    def digest(self) -> Digest:
        """Of what has passed."""
        return self._state.hexdigest()


def well_formed(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


def _begun(domain: str) -> hashlib._Hash:
    return hashlib.sha256(b"proofbeat/" + domain.encode() + b"\0")
