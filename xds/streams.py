"""One served gRPC stream: between the bytes of messages and the discovery state machines."""

from __future__ import annotations

from typing import Protocol

from xds.acks import Publication, StreamId, Verdict, Wait
from xds.ledger import Answer, Edition, Response
from xds.services import Discovery, Method, encode_response


class Round:
    """One turn of writing: the edition to bring, the nonces to use, and encodings that streams share.

    A nonce need only be unique on its stream, so streams that are told the same use the same bytes.
    """

    __slots__ = ("_encoded", "edition", "number")

    def __init__(self, number: int, edition: Edition) -> None:
        self.number = number
        self.edition = edition
        self._encoded: dict[tuple[object, ...], bytes] = {}

    def encode(self, response: Response, *, delta: bool) -> bytes:
        """The framed message of a response, serialised once a round."""
        # Resources live as long as the round's edition, so their ids name them, at less cost than their hashes.
        key = (response.nonce, response.type_url, *map(id, response.resources), response.removed, delta)
        encoded = self._encoded.get(key)
        if encoded is None:
            encoded = self._encoded[key] = encode_response(response, delta=delta)
        return encoded


class Hub(Protocol):
    """What streams need of their server."""

    @property
    def round(self) -> Round:
        """The present round."""

    def judged(self, verdict: Verdict) -> None:
        """A response was answered."""

    def written(self, stream: ServedStream) -> None:
        """The stream said all it had to say."""

    def stream_ended(self, stream: ServedStream) -> None:
        """The stream is over."""

    def now(self) -> float:
        """The server's clock."""


class ServedStream:
    """Takes requests, and says on demand what the client must be told next."""

    __slots__ = ("_discovery", "_hub", "_last_round", "_turn", "id")

    def __init__(self, hub: Hub, stream_id: StreamId, method: Method) -> None:
        self.id = stream_id
        self._hub = hub
        self._discovery = Discovery(method)
        self._last_round = 0
        self._turn = 0

    def receive(self, message: bytes) -> None:
        """Take a request; its answer to an earlier response reaches the server at once."""
        answer = self._discovery.receive(message)
        if answer is not None:
            self._hub.judged(self._verdict(answer, self._hub.now()))

    def next_message(self) -> bytes | None:
        """Everything the client lacks, framed; None when it lacks nothing."""
        present = self._hub.round
        delta = self._discovery.method.delta
        messages = []
        while response := self._discovery.respond(present.edition, self._nonce(present)):
            self._turn += 1
            messages.append(present.encode(response, delta=delta))
        if not messages:
            return None
        self._hub.written(self)
        return b"".join(messages)

    def heartbeat(self) -> bytes:
        """Framed responses that prolong the lifetimes the client relies on; empty when there are none."""
        present = self._hub.round
        messages = []
        for stream in self._discovery.types.values():
            response = stream.heartbeat(present.edition, self._nonce(present))
            if response is not None:
                self._turn += 1
                messages.append(present.encode(response, delta=self._discovery.method.delta))
        return b"".join(messages)

    def ended(self) -> None:
        """The stream is over."""
        self._hub.stream_ended(self)

    def follow(self, publication: Publication) -> None:
        """Tell the newest publication what it has to await of this stream: all that is unanswered of what it says."""
        edition = self._hub.round.edition
        for type_url, stream in self._discovery.types.items():
            wait = Wait(self.id, type_url)
            if stream.due(edition):
                publication.awaits(wait, None)
                continue
            publication.awaits(wait, stream.ledger.unanswered(edition.snapshot))
            if refused := stream.ledger.standing_rejection(edition.snapshot):
                publication.already_rejected(self._verdict(refused, publication.published_at))

    def _nonce(self, present: Round) -> str:
        if present.number != self._last_round:
            self._last_round = present.number
            self._turn = 0
        return f"{present.number}.{self._turn}"

    def _verdict(self, answer: Answer, at: float) -> Verdict:
        response = answer.response
        return Verdict(
            self.id,
            response.type_url,
            response.nonce,
            response.sequence,
            tuple(resource.name for resource in response.resources),
            response.removed,
            answer.rejection is None,
            answer.rejection or "",
            at,
            response.heartbeat,
            answer.passed_over,
            tuple(resource.body for resource in response.resources),
        )
