"""SPIFFE IDs, by the letter of the SPIFFE-ID standard (sections 2.1 to 2.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestation.errors import InvalidInput

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")
_MOST_BYTES = 2048

RESERVED_PREFIX = "/proofbeat/"
AUTHORITY_PATH = "/proofbeat/authority"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`spiffe://trust_domain/path`. path is empty (a trust domain's own ID) or begins with a slash."""

    trust_domain: str
    path: str = ""

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise InvalidInput(
                f"{self.trust_domain!r} is not a trust domain",
                mend="Use lower-case letters, digits, dots, dashes and underscores, at most 255.",
            )
        if self.path and not all(_valid_segment(segment) for segment in self._segments()):
            raise InvalidInput(
                f"{self.path!r} is not a SPIFFE ID path",
                mend="Segments use letters, digits, dots, dashes and underscores; none is empty, '.' or '..'.",
            )
        if len(str(self)) > _MOST_BYTES:
            raise InvalidInput(f"a SPIFFE ID of {len(str(self))} bytes", mend=f"Keep it within {_MOST_BYTES}.")

    def _segments(self) -> list[str]:
        # A path that lacks its leading slash yields a first segment that is not empty: refused below.
        head, *rest = self.path.split("/")
        return rest if head == "" else [""]

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Raises InvalidInput for any deviation: query, fragment, port, user, percent-encoding, empty segment."""
        scheme, separator, rest = text.partition("://")
        if scheme != "spiffe" or not separator:
            raise InvalidInput(f"{text!r} is not a SPIFFE ID", mend="It begins with spiffe://.")
        trust_domain, slash, path = rest.partition("/")
        return cls(trust_domain, slash + path)

    @classmethod
    def authority(cls, trust_domain: str) -> SpiffeId:
        """The reserved ID which only the authority presents; nothing can register under its prefix."""
        return cls(trust_domain, AUTHORITY_PATH)

    @property
    def reserved(self) -> bool:
        return self.path.startswith(RESERVED_PREFIX)

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"


def _valid_segment(segment: str) -> bool:
    return segment not in (".", "..") and _SEGMENT.fullmatch(segment) is not None
