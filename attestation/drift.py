"""One drift, named alike by everybody who finds the same: what may close some instances and hold others back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from attestation import digests
from attestation.plain import plain

MOST_DRIFTS = 24
"""Of one instance at a time. It is less than the findings that a verdict tells of a layer: one with more of them may
have left some untold."""
MOST_WORDS = 1000
"""Characters of each of its parts."""


@dataclass(frozen=True, slots=True, order=True)
class Drift:
    """kind: a signal. layer: of attestation.layers. subject: the path or executable. found: what is there instead of
    what belongs there: a content's digest, or words that name no process and no time.
    """

    kind: str
    layer: str
    subject: str
    found: str

    @property
    def id(self) -> str:
        return "d-" + digests.tagged("drift", json.dumps(plain(self), sort_keys=True).encode())[:32]

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}"
