"""The incremental protocol for one resource type on one stream: requests in, responses out, no I/O.

xDS protocol, "incremental xDS": a client subscribes and unsubscribes by difference, a nonce answers a response, and
after a reconnect the client declares what it already holds.
"""

from __future__ import annotations

from collections.abc import Iterable

from xds.ledger import Answer, Edition, Ledger, Response
from xds.messages import DeltaRequest
from xds.subscription import FULL_STATE_TYPES, WILDCARD, Subscription
from xds.ttl import expiring


class DeltaStream:
    """State of one type on one incremental stream."""

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.ledger = Ledger()
        self._subscription = Subscription(type_url)
        self._opened = False
        self._answer_owed = False
        self._brought_to: Edition | None = None

    def receive(self, request: DeltaRequest) -> Answer | None:
        """Take a request; returns the answer it carries to an earlier response, if any."""
        if not self._opened:
            self._open(request)
            self._brought_to = None
        elif request.subscribe or request.unsubscribe:
            self._change(request)
        if not request.nonce:
            return None
        answer = self.ledger.answered(request.nonce, request.rejection)
        if answer is not None and self._subscription.doubt_spared(answer.spared):
            self._brought_to = None
        return answer

    def due(self, edition: Edition) -> bool:
        """Whether `respond` has something to say."""
        if edition is self._brought_to:
            return False
        table = edition.snapshot.table(self.type_url)
        owed = self._answer_owed and edition.sequence > 0
        return owed or bool(self._subscription.changed(table) or self._gone(edition))

    def respond(self, edition: Edition, nonce: str, *, removals: bool = True) -> Response | None:
        """The response that brings the client to `edition`, or None when it is there.

        With `removals` false only additions and changes are told, so that a caller can order several types.
        """
        if edition is self._brought_to:
            return None
        table = edition.snapshot.table(self.type_url)
        changed = self._subscription.changed(table)
        removed = self._gone(edition) if removals else ()
        if removals:
            self._brought_to = edition
        if not (changed or removed or (self._answer_owed and edition.sequence > 0)):
            return None
        self._answer_owed = False
        self._subscription.sent(changed, removed)
        version = edition.snapshot.version(self.type_url)
        response = Response(self.type_url, version, nonce, edition.sequence, changed, removed, renewed=changed)
        self.ledger.sent(response)
        return response

    def heartbeat(self, edition: Edition, nonce: str) -> Response | None:
        """Every resource with a lifetime that the client holds as it is now, in full; None when there is none."""
        resources = expiring(edition.snapshot.table(self.type_url), self._subscription.known)
        if not resources:
            return None
        version = edition.snapshot.version(self.type_url)
        response = Response(self.type_url, version, nonce, edition.sequence, resources, heartbeat=True)
        self.ledger.sent(response)
        return response

    def repeat(self, names: Iterable[str]) -> None:
        """Tell these again, if the client was told of them."""
        for name in names:
            self._subscription.doubt(name)
        self._brought_to = None

    def _gone(self, edition: Edition) -> tuple[str, ...]:
        """What the client must be told does not exist: what it holds and, where absence is certain, what it asked
        for. Who subscribes to everything knows all there is, so to him it always is."""
        table = edition.snapshot.table(self.type_url)
        vanished = self._subscription.vanished(table)
        certain = self._subscription.wildcard or self.type_url in edition.snapshot.complete
        if not certain or edition.sequence == 0:
            return vanished
        return vanished + self._subscription.missed(table)

    def _open(self, request: DeltaRequest) -> None:
        self._opened = True
        subscription = self._subscription
        subscription.subscribe(request.subscribe)
        if not request.subscribe and self.type_url in FULL_STATE_TYPES:
            subscription.wildcard = True
        # Who asks for everything must learn that there is nothing, or it waits for its time-out.
        self._answer_owed = subscription.wildcard
        subscription.known = dict(request.initial_versions or {})
        subscription.unsubscribe(request.unsubscribe)  # which also drops what is declared but not wanted

    def _change(self, request: DeltaRequest) -> None:
        self._brought_to = None
        # A client that subscribes again may have dropped the content, or may be about to read a response that is
        # still under way: it must be told again, be it of the content or of its absence.
        under_way = self.ledger.names_under_way()
        had_everything = self._subscription.wildcard
        everything_anew = WILDCARD in request.subscribe and not had_everything
        forgotten = under_way - self._subscription.known.keys() if everything_anew else ()
        for name in (*request.subscribe, *forgotten):
            self._subscription.doubt(name, under_way)
        self._subscription.subscribe(request.subscribe)
        self._subscription.unsubscribe(request.unsubscribe)
        self._answer_owed = self._answer_owed or (self._subscription.wildcard and not had_everything)
