"""The responses of one type on one stream that await an answer, and those that were refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
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
    """The client's word on a response: `rejection` is its reason, None when it accepted.

    `passed_over` are the nonces of earlier responses on which it will say nothing any more.
    """

    response: Response
    rejection: str | None
    passed_over: tuple[str, ...] = ()

    @property
    def spared(self) -> tuple[Resource, ...]:
        """The resources of a rejected response that the reason does not blame. They may not have been applied either:
        a value that breaks a constraint has Envoy throw away the whole response."""
        if self.rejection is None or self.response.heartbeat:
            return ()
        guilty = blamed([resource.name for resource in self.response.resources], self.rejection)
        return tuple(resource for resource in self.response.resources if resource.name not in guilty)


def blamed(names: Sequence[str], reason: str) -> tuple[str, ...]:
    """The names that a reason mentions; all of them, when it mentions none."""
    mentioned = (name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", reason))
    return tuple(mentioned) or tuple(names)


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

    def awaited(self, nonce: str) -> Response | None:
        """The unanswered response of this nonce."""
        return self._outstanding.get(nonce)

    def answered(self, nonce: str, rejection: str | None, *, for_all_before: bool = False) -> Answer | None:
        """The answer that a request's nonce and error detail amount to, or None when they answer nothing.

        `for_all_before`: the client may leave earlier responses unanswered, so this is its last word on them as well.
        """
        response = self._outstanding.get(nonce)
        if response is None:
            return None
        passed_over = tuple(itertools.takewhile(nonce.__ne__, self._outstanding)) if for_all_before else ()
        for over in (*passed_over, nonce):
            del self._outstanding[over]
        answer = Answer(response, rejection, passed_over)
        for resource in response.resources:
            if rejection is None:
                self._rejected.pop(resource.name, None)
            else:
                self._rejected[resource.name] = answer
        return answer

    def unanswered(self, snapshot: Snapshot) -> frozenset[str]:
        """The nonces of the responses, heartbeats apart, whose answers tell whether `snapshot` is in force: those that
        carry some of it, or that were all there was to say."""
        return frozenset(
            nonce
            for nonce, response in self._outstanding.items()
            if not response.heartbeat and _still_says(response, snapshot)
        )

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


def _still_says(response: Response, snapshot: Snapshot) -> bool:
    table = snapshot.table(response.type_url)
    if not (response.renewed or response.removed):
        return True
    renewed = (table.get(resource.name) for resource in response.renewed)
    current = any(
        now is not None and now.version == was.version for now, was in zip(renewed, response.renewed, strict=True)
    )
    return current or any(name not in table for name in response.removed)
