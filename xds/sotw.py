"""The state-of-the-world protocol for one resource type on one stream: requests in, responses out, no I/O.

xDS protocol, "basic protocol overview" and "ACK/NACK and resource type instance version": each request repeats the
names wanted; version and nonce say which response was accepted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xds.errors import GrpcStatus, StreamError
from xds.ledger import Answer, Edition, Ledger, Response
from xds.messages import SotwRequest
from xds.snapshot import Resource
from xds.subscription import FULL_STATE_TYPES, WILDCARD, Subscription

_KEPT: Final = "+"  # the version of a type with what is about to go


class SotwStream:
    """State of one type on one state-of-the-world stream."""

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.ledger = Ledger()
        self._subscription = Subscription(type_url)
        self._full_state = type_url in FULL_STATE_TYPES
        self._sent: Response | None = None
        self._names: tuple[str, ...] | None = None
        self._named = False
        self._brought_to: Edition | None = None
        self._answer_owed = False
        self._told: dict[str, Resource] = {}
        self._given_up: set[str] = set()

    def receive(self, request: SotwRequest) -> Answer | None:
        """Take a request; returns the answer it carries to the last response, if any."""
        sent = self._sent
        if sent is not None and request.nonce not in ("", sent.nonce):
            self._overtaken(request.names)
            return self._answer(request)
        if self._names is None and self._full_state and request.version:
            self._answer_owed = True  # what it holds from an earlier stream is removed by nothing but a response
        if request.names != self._names:
            self._want(request.names)
        if self._given_up:
            self.repeat(self._given_up)
            self._given_up.clear()
        return self._answer(request)

    @property
    def wants_all(self) -> bool:
        """Whether the client asks for every resource of the type, not for names."""
        return self._subscription.wildcard

    def wants(self, name: str) -> bool:
        """Whether the client asks for a resource of this name."""
        return self._subscription.wants(name)

    def held(self, edition: Edition) -> Iterable[Resource]:
        """The resources of `edition` that the client was told of."""
        return self._subscription.held(edition.snapshot.table(self.type_url))

    def due(self, edition: Edition) -> bool:
        """Whether `respond` has something to say."""
        if edition is self._brought_to:
            return False
        table = edition.snapshot.table(self.type_url)
        owed = self._answer_owed and edition.sequence > 0
        gone = self._full_state and bool(self._subscription.vanished(table))
        return owed or gone or bool(self._subscription.changed(table))

    def respond(self, edition: Edition, nonce: str, *, removals: bool = True) -> Response | None:
        """The response that brings the client to `edition`, or None when it is there.

        Listeners and clusters are always told in full, since their absence removes; of other types only what
        changed. With `removals` false what is gone is repeated as it was, so that a caller can order several types and
        nothing goes before what refers to it. Raises StreamError for a resource with a lifetime: this protocol cannot
        prolong it in Envoy, and serving it without one would let it outlive its source.
        """
        if edition is self._brought_to:
            return None
        if removals:
            self._brought_to = edition
        table = edition.snapshot.table(self.type_url)
        changed = self._subscription.changed(table)
        gone = self._subscription.vanished(table)
        owed = self._answer_owed and edition.sequence > 0
        if not (changed or owed or (gone and self._full_state and removals)):
            if not self._full_state:
                self._subscription.sent((), gone)
            return None
        kept = () if removals else tuple(self._told[name] for name in gone if name in self._told)
        response = self._tell(edition, nonce, changed, kept)
        self._subscription.sent(changed, () if kept else gone)
        return response

    def heartbeat(self, edition: Edition, nonce: str) -> Response | None:
        """Nothing: no resource with a lifetime is served by this protocol."""
        return None

    def repeat(self, names: Iterable[str]) -> None:
        """Tell these again, if the client was told of them."""
        for name in names:
            self._subscription.doubt(name)
        self._brought_to = None

    def _want(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._brought_to = None
        if names:
            self._named = True
        everything = self._means_everything(names)
        # Who asks for everything must learn that there is nothing, or it waits for its time-out.
        self._answer_owed = self._answer_owed or (everything and not self._subscription.wildcard)
        self._subscription.replace(names, wildcard=everything)

    def _answer(self, request: SotwRequest) -> Answer | None:
        sent = self.ledger.awaited(request.nonce)
        # A changed list of names repeats the last nonce: only the version sent, or an error, answers.
        if sent is None or (request.rejection is None and request.version != sent.version):
            return None
        answer = self.ledger.answered(request.nonce, request.rejection, for_all_before=True)
        # A response in full would bring the bad one again.
        if answer is not None and not self._full_state and self._subscription.doubt_spared(answer.spared):
            self._brought_to = None
        return answer

    def _means_everything(self, names: tuple[str, ...]) -> bool:
        return WILDCARD in names or (not (names or self._named) and self._full_state)

    def _overtaken(self, names: tuple[str, ...]) -> None:
        """A request that was written before the client saw our last response: its answer to that will say what it
        wants. But what it gave up in between it may have thrown away, and if it wants it by then, it must be told. And
        its word on an earlier response is a word, whatever came after."""
        if not self._means_everything(names):
            self._given_up.update(self._subscription.known.keys() - set(names))

    def _tell(
        self, edition: Edition, nonce: str, changed: tuple[Resource, ...], kept: tuple[Resource, ...]
    ) -> Response:
        resources = changed
        if self._full_state:
            resources = self._everything(edition) + kept
            self._told = {resource.name: resource for resource in resources}
        self._refuse_lifetimes(resources)
        version = edition.snapshot.version(self.type_url) + (_KEPT if kept else "")
        response = Response(self.type_url, version, nonce, edition.sequence, resources, renewed=changed)
        self._answer_owed = False
        self._sent = response
        self.ledger.sent(response)
        return response

    def _everything(self, edition: Edition) -> tuple[Resource, ...]:
        table = edition.snapshot.table(self.type_url)
        return tuple(resource for name, resource in table.items() if self._subscription.wants(name))

    def _refuse_lifetimes(self, resources: tuple[Resource, ...]) -> None:
        for resource in resources:
            if resource.ttl is not None:
                raise StreamError(
                    GrpcStatus.FAILED_PRECONDITION,
                    f"{resource.name!r} has a lifetime, which only incremental discovery can prolong; "
                    "use api_type DELTA_GRPC",
                )
