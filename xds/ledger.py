"""The responses of one type on one stream that await an answer, and those that were refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from xds.snapshot import Resource, Snapshot

MAX_OUTSTANDING: Final = 64
"""Unanswered responses remembered a stream and type; a client that never answers costs no more than this."""


@dataclass(frozen=True, slots=True)
class Edition:
    """A snapshot and the number of its publication; 0 is the time before the first."""

    snapshot: Snapshot
    sequence: int


@dataclass(frozen=True, slots=True)
class Response:
    """What a stream is told: `resources` in full, then `removed`. A heartbeat only prolongs lifetimes.

    `renewed` are those of the resources that are news to the client; the rest is repeated because the protocol says so.
    """

    type_url: str
    version: str
    nonce: str
    sequence: int
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()
    heartbeat: bool = False
    renewed: tuple[Resource, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The client's word on a response: `rejection` is its reason, None when it accepted."""

    response: Response
    rejection: str | None


@dataclass(slots=True)
class Ledger:
    """Matches answers to responses by nonce; an unknown nonce is stale and means nothing."""

    _outstanding: dict[str, Response] = field(default_factory=dict)
    _rejected: dict[str, Answer] = field(default_factory=dict)

    def sent(self, response: Response) -> None:
        """Await an answer to `response`; the oldest is given up beyond MAX_OUTSTANDING."""
        self._outstanding[response.nonce] = response
        if len(self._outstanding) > MAX_OUTSTANDING:
            del self._outstanding[next(iter(self._outstanding))]

    def answered(self, nonce: str, rejection: str | None) -> Answer | None:
        """The answer that a request's nonce and error detail amount to, or None when they answer nothing."""
        response = self._outstanding.pop(nonce, None)
        if response is None:
            return None
        answer = Answer(response, rejection)
        for resource in response.resources:
            if rejection is None:
                self._rejected.pop(resource.name, None)
            else:
                self._rejected[resource.name] = answer
        return answer

    def latest(self) -> Response | None:
        """The newest unanswered response that carried a change."""
        for response in reversed(self._outstanding.values()):
            if not response.heartbeat:
                return response
        return None

    def names_under_way(self) -> set[str]:
        """The resources of unanswered responses, which the client may yet take up."""
        return {r.name for response in self._outstanding.values() for r in response.resources}

    def standing_rejection(self, snapshot: Snapshot) -> Answer | None:
        """A rejection of content that `snapshot` still holds: publishing it again is no news to the client."""
        for name, answer in self._rejected.items():
            current = snapshot.get(answer.response.type_url, name)
            if current is not None and any(
                r.name == name and r.version == current.version for r in answer.response.resources
            ):
                return answer
        return None
