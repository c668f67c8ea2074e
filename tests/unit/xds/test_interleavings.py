"""A client of an aggregated stream, its requests and our responses under way, and whatever may happen in between.

In whatever order publications, subscriptions, rejections, slow reading and broken connections come, the client ends
with what it wants of the newest snapshot, and on the way it is never told what it did not ask for. The client is a
model of a correct one, in both protocols; the server's side is ours, less its sockets.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from xds.ledger import Edition, Response
from xds.messages import encode_discovery
from xds.services import Discovery, method
from xds.snapshot import Reference, Resource, Snapshot, type_url
from xds.subscription import FULL_STATE_TYPES, WILDCARD

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
CLUSTER = type_url("envoy.config.cluster.v3.Cluster")
ENDPOINTS = type_url("envoy.config.endpoint.v3.ClusterLoadAssignment")
SECRET = type_url("envoy.extensions.transport_sockets.tls.v3.Secret")
TYPES = (CLUSTER, ENDPOINTS, SECRET)
NAMES = ("a", "b", "c")
UNDER_WAY = 2  # responses that a slow client leaves unread before the server may write no more
MOST_TO_SETTLE = 500  # responses until nothing is under way: ten times as many as a history here takes

types = st.sampled_from(TYPES)
names = st.sets(st.sampled_from(NAMES), min_size=1)
bodies = st.dictionaries(st.tuples(types, st.sampled_from(NAMES)), st.sampled_from([b"1", b"2", b"3"]))


@dataclass
class Wish:
    """What one side believes is wanted of a type."""

    names: set[str] = field(default_factory=set)
    star: bool = False

    def __bool__(self) -> bool:
        return bool(self.names) or self.star

    def covers(self, name: str) -> bool:
        return self.star or name in self.names

    def listed(self) -> list[str]:
        return [WILDCARD] * self.star + sorted(self.names)

    def copy(self) -> Wish:
        return Wish(set(self.names), self.star)


@dataclass
class Request:
    """A message on its way to us. `wish` is what the server believes once it took it; None: what it did before."""

    url: str
    message: bytes
    wish: Wish | None
    nonce: str = ""


def snapshot_of(
    contents: dict[tuple[str, str], bytes], complete: tuple[str, ...] = (), mortal: tuple[str, ...] = ()
) -> Snapshot:
    """`mortal` names are secrets with a lifetime."""

    def resource(url: str, name: str, body: bytes) -> Resource:
        references = [Reference(ENDPOINTS, name)] if url == CLUSTER and (ENDPOINTS, name) in contents else []
        ttl = 3.0 if url == SECRET and name in mortal else None
        return Resource.of(url, name, body, ttl=ttl, references=references)

    return Snapshot.of(*(resource(url, name, body) for (url, name), body in contents.items()), complete=complete)


class Interleavings(RuleBasedStateMachine):
    """The world; the two protocols say how a client speaks in it."""

    path: str
    rejecting = True
    complete: tuple[str, ...] = ()
    mortal: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.edition = Edition(Snapshot.EMPTY, 0)
        self.contents: dict[tuple[str, str], bytes] = {}
        self.wanted = {url: Wish() for url in TYPES}
        self.held: dict[str, dict[str, Resource]] = {url: {} for url in TYPES}
        self.said: dict[str, str | None] = {}
        self.nonces = 0
        self.connect()

    def connect(self) -> None:
        self.discovery = Discovery(method(self.path))
        self.believed = {url: Wish() for url in TYPES}
        self.up: deque[Request] = deque()
        self.down: deque[Response] = deque()
        self.asked: set[str] = set()
        self.last_told = dict.fromkeys(TYPES, "")
        for url in TYPES:
            if self.wanted[url]:
                self.say(url)

    # What the protocols differ in.

    def say(self, url: str, *, added: tuple[str, ...] = (), dropped: tuple[str, ...] = ()) -> None:
        """Tell the server what is wanted, for the first time on this stream or as a change."""
        raise NotImplementedError

    def take(self, response: Response, rejection: str | None) -> None:
        """Apply a response, or not, and answer it."""
        raise NotImplementedError

    # What happens.

    @rule(contents=bodies)
    def publish(self, contents: dict[tuple[str, str], bytes]) -> None:
        self.contents = contents
        self.edition = Edition(snapshot_of(contents, self.complete, self.mortal), self.edition.sequence + 1)
        self.pump()

    @precondition(lambda self: self.edition.sequence)
    @rule()
    def publish_the_same_again(self) -> None:
        idle = self.writable()
        self.pump()
        before = len(self.down)
        self.edition = Edition(snapshot_of(dict(self.contents), self.complete, self.mortal), self.edition.sequence + 1)
        if idle and self.writable():
            self.pump()
            assert len(self.down) == before, "what has not changed is not told"

    @rule(url=types, more=names)
    def subscribe(self, url: str, more: set[str]) -> None:
        self.wanted[url].names |= more
        self.say(url, added=tuple(sorted(more)))

    @rule(url=types)
    def subscribe_to_everything(self, url: str) -> None:
        self.wanted[url].star = True
        self.say(url, added=(WILDCARD,))

    @rule(url=types, fewer=names)
    def unsubscribe(self, url: str, fewer: set[str]) -> None:
        self.wanted[url].names -= fewer
        self.forget_unwanted(url)
        if url in self.asked:
            self.say(url, dropped=tuple(sorted(fewer)))

    @rule(url=types)
    def unsubscribe_from_everything(self, url: str) -> None:
        self.wanted[url].star = False
        self.forget_unwanted(url)
        if url in self.asked:
            self.say(url, dropped=(WILDCARD,))

    @rule()
    def server_reads(self) -> None:
        if not self.up:
            return
        request = self.up.popleft()
        answer = self.discovery.receive(request.message)
        if answer is not None:
            assert answer.rejection == self.said[answer.response.nonce], "the client's own word on this response"
        if request.wish is not None and self.counts(request):
            self.believed[request.url] = request.wish
        self.pump()

    @rule(accept=st.booleans())
    def client_reads(self, accept: bool) -> None:
        if self.down:
            response = self.down.popleft()
            blamed = response.resources[0].name if response.resources else "it"
            rejection = None if accept or not self.rejecting else f"{blamed}: bad"
            self.said[response.nonce] = rejection
            self.take(response, rejection)
            self.pump()

    @rule()
    def reconnect(self) -> None:
        self.connect()

    def teardown(self) -> None:
        self.settle()
        if self.rejecting:
            # What a client rejected it is told again when it changes.
            self.publish({(url, name): b"final" for url in TYPES for name in NAMES})
            self.settle()
        for url in TYPES:
            table = self.edition.snapshot.table(url)
            held = {n: r.version for n, r in self.held[url].items() if n in table or self.told_of_removals(url)}
            assert held == {n: r.version for n, r in table.items() if self.wanted[url].covers(n)}

    # How it works.

    def told_of_removals(self, url: str) -> bool:
        return self.discovery.method.delta or url in FULL_STATE_TYPES

    def forget_unwanted(self, url: str) -> None:
        self.held[url] = {name: r for name, r in self.held[url].items() if self.wanted[url].covers(name)}

    def counts(self, request: Request) -> bool:
        """Whether the server may go by a request."""
        return True

    def writable(self) -> bool:
        return len(self.down) < UNDER_WAY

    def pump(self) -> None:
        """The server writes all it has to say, if the client reads."""
        if not self.writable():
            return
        written: list[Response] = []
        while response := self.discovery.respond(self.edition, self.nonce()):
            self.check(response)
            self.last_told[response.type_url] = response.nonce
            written.append(response)
            assert len(written) <= 2 * len(TYPES), "a type is told of once, and of its removals once"
        self.check_order(written)
        self.down.extend(written)

    def nonce(self) -> str:
        self.nonces += 1
        return str(self.nonces)

    def check(self, response: Response) -> None:
        """What holds of every response when it is written."""
        table = self.edition.snapshot.table(response.type_url)
        told = [r.name for r in response.resources]
        assert len(told) + len(response.removed) == len({*told, *response.removed}), "no name twice"
        assert all(self.believed[response.type_url].covers(name) for name in told), "nothing that was not asked for"
        old = [r for r in response.resources if table.get(r.name) != r]
        assert not old or response.version.endswith("+"), "nothing but the newest, unless it is about to go"
        assert not any(name in table for name in response.removed), "nothing is called gone that is there"

    def check_order(self, written: list[Response]) -> None:
        removing = False
        for response in written:
            removing = removing or bool(response.removed)
            assert not (removing and response.resources) or len(self.discovery.types) == 1, "removals come last"

    def settle(self) -> None:
        """Everything under way arrives, and is accepted."""
        self.pump()
        for _ in range(MOST_TO_SETTLE):
            if not (self.up or self.down):
                return
            while self.up:
                self.server_reads()
            self.client_reads(True)
        raise AssertionError("client and server never come to rest")


class Incremental(Interleavings):
    path = ADS + "DeltaAggregatedResources"
    mortal = ("b", "c")

    def connect(self) -> None:
        self.waiting: dict[str, set[str]] = {url: set() for url in TYPES}
        super().connect()

    def say(self, url: str, *, added: tuple[str, ...] = (), dropped: tuple[str, ...] = ()) -> None:
        first = url not in self.asked
        self.asked.add(url)
        self.waiting[url] |= self.wanted[url].names - self.held[url].keys() if first else set(added) - {WILDCARD}
        message = encode_discovery(
            "DeltaDiscoveryRequest",
            type_url=url,
            resource_names_subscribe=self.wanted[url].listed() if first else added,
            resource_names_unsubscribe=() if first else dropped,
            initial_resource_versions={n: r.version for n, r in self.held[url].items()} if first else {},
        )
        self.up.append(Request(url, message, self.wanted[url].copy()))

    @precondition(lambda self: self.writable())
    @rule()
    def heartbeat(self) -> None:
        """Sent where the client reads, when all there is to say has been said."""
        self.pump()
        for url, stream in self.discovery.types.items():
            beat = stream.heartbeat(self.edition, self.nonce())
            if beat is not None:
                self.check(beat)
                assert url == SECRET
                assert {r.name for r in beat.resources} <= set(self.mortal)
                self.down.append(beat)

    def take(self, response: Response, rejection: str | None) -> None:
        url, held = response.type_url, self.held[response.type_url]
        for resource in response.resources:
            if self.wanted[url].covers(resource.name) and rejection is None:
                held[resource.name] = resource
        for name in response.removed:
            held.pop(name, None)
        error = {} if rejection is None else {"error_detail": {"message": rejection}}
        self.waiting[url] -= {*(r.name for r in response.resources), *response.removed}
        answer = encode_discovery("DeltaDiscoveryRequest", type_url=url, response_nonce=response.nonce, **error)
        self.up.append(Request(url, answer, None))

    def teardown(self) -> None:
        super().teardown()
        self.heartbeat()
        beating = {r.name for beat in self.down for r in beat.resources}
        assert beating == {name for name in self.held[SECRET] if name in self.mortal}, "all that lives is kept alive"
        self.settle()
        ledgers = [stream.ledger for stream in self.discovery.types.values()]
        assert not any(ledger.unanswered(self.edition.snapshot) for ledger in ledgers), "all is answered"
        if self.edition.sequence and self.complete:
            assert not any(self.waiting[url] & self.wanted[url].names for url in TYPES), "nobody waits for what is not"


class IncrementalOnDemand(Incremental):
    """What is absent stays absent, and whoever asks is told."""

    complete = TYPES


class StateOfTheWorld(Interleavings):
    path = ADS + "StreamAggregatedResources"

    def connect(self) -> None:
        self.nonce_of = dict.fromkeys(TYPES, "")
        super().connect()

    def __init__(self) -> None:
        self.version_of = dict.fromkeys(TYPES, "")
        super().__init__()

    def say(self, url: str, *, added: tuple[str, ...] = (), dropped: tuple[str, ...] = ()) -> None:
        self.ask(url)

    def ask(self, url: str, rejection: str | None = None) -> None:
        self.asked.add(url)
        message = encode_discovery(
            "DiscoveryRequest",
            type_url=url,
            resource_names=self.wanted[url].listed(),
            version_info=self.version_of[url],
            response_nonce=self.nonce_of[url],
            **({} if rejection is None else {"error_detail": {"message": rejection}}),
        )
        self.up.append(Request(url, message, self.wanted[url].copy(), self.nonce_of[url]))

    def counts(self, request: Request) -> bool:
        return request.nonce in ("", self.last_told[request.url])

    def take(self, response: Response, rejection: str | None) -> None:
        url = response.type_url
        self.nonce_of[url] = response.nonce
        if rejection is None:
            self.version_of[url] = response.version
            kept = {} if url in FULL_STATE_TYPES else self.held[url]
            new = {r.name: r for r in response.resources if self.wanted[url].covers(r.name)}
            self.held[url] = {**kept, **new}
        self.ask(url, rejection)


def accepting(machine: type[Interleavings]) -> type[Interleavings]:
    """The same with a client that rejects nothing: it has all at the end without another change."""
    return type(machine.__name__ + "Accepting", (machine,), {"rejecting": False})


MACHINES = (Incremental, IncrementalOnDemand, StateOfTheWorld)


# It ends by its steps, which are counted, however slow the machine is.
@pytest.mark.timeout(0)
@pytest.mark.parametrize("machine", [*MACHINES, *map(accepting, MACHINES)], ids=lambda machine: machine.__name__)
def test_whatever_happens_in_between_the_client_ends_with_what_it_wants(machine: type[Interleavings]) -> None:
    thorough = settings(max_examples=40, stateful_step_count=40)
    run_state_machine_as_test(machine, settings=thorough)
