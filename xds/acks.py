"""What became of a publication: which streams accepted it, rejected it, or went away before they answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from xds.ledger import blamed


@dataclass(frozen=True, slots=True)
class StreamId:
    """A stream of a connection; connections are numbered from 1 and never reuse a number."""

    connection: int
    stream: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Envoy's answer to one response. `reason` is its own text when it rejected. `at` is on the server's clock.

    Envoy answers a response as a whole: beside a bad resource the good ones were applied, or not. `passed_over` are the
    nonces of earlier responses that this answers as well. `bodies` are those of the resources, in their order.
    """

    stream: StreamId
    type_url: str
    nonce: str
    sequence: int
    resources: tuple[str, ...]
    removed: tuple[str, ...]
    accepted: bool
    reason: str
    at: float
    heartbeat: bool = False
    passed_over: tuple[str, ...] = ()
    bodies: tuple[bytes, ...] = ()

    @property
    def blamed(self) -> tuple[str, ...]:
        """Of a rejected response, the resources that the reason names; all that were sent, when it names none."""
        if self.accepted:
            return ()
        return blamed(self.resources, self.reason)


@dataclass(frozen=True, slots=True)
class Wait:
    """One answer awaited: of a stream, about a type."""

    stream: StreamId
    type_url: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a publication stands. `superseded`: a newer one overtook it before it could be sent there."""

    accepted: tuple[Verdict, ...]
    rejected: tuple[Verdict, ...]
    gone: tuple[StreamId, ...]
    superseded: tuple[StreamId, ...]
    pending: tuple[StreamId, ...]

    @property
    def in_force(self) -> bool:
        """Every stream that had to be told, and is still there, accepted this very publication."""
        return not (self.rejected or self.pending or self.superseded)


class Publication:
    """One published snapshot, followed until every stream that had to be told has answered or gone."""

    def __init__(self, sequence: int, published_at: float) -> None:
        self.sequence = sequence
        self.published_at = published_at
        # The nonces whose answers settle the wait; None while a response itself waits for flow control.
        self._pending: dict[Wait, frozenset[str] | None] = {}
        self._accepted: list[Verdict] = []
        self._rejected: list[Verdict] = []
        self._gone: list[StreamId] = []
        self._superseded: list[StreamId] = []
        self._when_settled: list[Callable[[Settlement], None]] = []
        self._when_rejected: list[Callable[[Verdict], None]] = []

    @property
    def settled(self) -> bool:
        """No answer is awaited; true from the start when no connected stream had to be told."""
        return not self._pending

    def settlement(self) -> Settlement:
        """How it stands now."""
        return Settlement(
            tuple(self._accepted),
            tuple(self._rejected),
            tuple(self._gone),
            tuple(self._superseded),
            tuple(wait.stream for wait in self._pending),
        )

    def on_settled(self, callback: Callable[[Settlement], None]) -> None:
        """Call back once, synchronously, when the last answer arrives; at once if it has."""
        if self.settled:
            callback(self.settlement())
        else:
            self._when_settled.append(callback)

    def on_rejected(self, callback: Callable[[Verdict], None]) -> None:
        """Call back at each rejection, synchronously; at once for those that came already."""
        for verdict in self._rejected:
            callback(verdict)
        self._when_rejected.append(callback)

    async def acknowledged(self, within: float) -> Settlement:
        """Wait until settled or for `within` seconds; what is still unanswered then is in `pending`."""
        if not self.settled:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._when_settled.append(lambda _: None if done.done() else done.set_result(None))
            await asyncio.wait((done,), timeout=within)
        return self.settlement()

    # What follows is the server's side.

    def awaits(self, wait: Wait, nonces: frozenset[str] | None) -> None:
        """A stream has to answer by each of `nonces`; None: its turn to be written has not come."""
        if nonces is None or nonces:
            self._pending[wait] = nonces
        elif self._pending.pop(wait, ()) is None:
            self._settle()

    def not_written(self, stream: StreamId) -> bool:
        """Whether something that the stream is to be told was not written yet."""
        return any(nonces is None and wait.stream == stream for wait, nonces in self._pending.items())

    def already_rejected(self, verdict: Verdict) -> None:
        """The stream refused this same content before, and was not sent it again; heard once."""
        if all((known.stream, known.nonce) != (verdict.stream, verdict.nonce) for known in self._rejected):
            self._reject(verdict)

    def answered(self, verdict: Verdict) -> None:
        """Take an answer; one about another response changes nothing."""
        wait = Wait(verdict.stream, verdict.type_url)
        nonces = self._pending.get(wait)
        answered = {verdict.nonce, *verdict.passed_over}
        if nonces is None or nonces.isdisjoint(answered) or verdict.heartbeat:
            return
        if rest := nonces - answered:
            self._pending[wait] = rest
        else:
            del self._pending[wait]
        if verdict.accepted:
            self._accepted.append(verdict)
        else:
            self._reject(verdict)
        self._settle()

    def stream_gone(self, stream: StreamId) -> None:
        """The stream ended; what it owed will not come."""
        owed = [wait for wait in self._pending if wait.stream == stream]
        for wait in owed:
            del self._pending[wait]
            self._gone.append(stream)
        if owed:
            self._settle()

    def superseded(self) -> None:
        """A newer snapshot was published: what was never written will never be."""
        self._give_up([wait for wait, nonce in self._pending.items() if nonce is None])

    def abandon(self) -> None:
        """Stop waiting: too many newer publications are unanswered as well."""
        self._give_up(list(self._pending))

    def _give_up(self, waits: list[Wait]) -> None:
        for wait in waits:
            del self._pending[wait]
            self._superseded.append(wait.stream)
        if waits:
            self._settle()

    def _reject(self, verdict: Verdict) -> None:
        self._rejected.append(verdict)
        for callback in self._when_rejected:
            callback(verdict)

    def _settle(self) -> None:
        if self._pending:
            return
        callbacks, self._when_settled = self._when_settled, []
        for callback in callbacks:
            callback(self.settlement())
