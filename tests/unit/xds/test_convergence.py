"""Whatever a client does and whenever the server publishes, the client ends with what it wants of the snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from xds.delta import DeltaStream
from xds.ledger import Edition, Response
from xds.messages import DeltaRequest, SotwRequest
from xds.snapshot import Resource, Snapshot
from xds.sotw import SotwStream
from xds.subscription import FULL_STATE_TYPES

T = "type.googleapis.com/t"
LISTENER = next(url for url in sorted(FULL_STATE_TYPES) if "Listener" in url)
NAMES = ("a", "b", "c")

names = st.sets(st.sampled_from(NAMES), min_size=1)
contents = st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=1))


@dataclass(frozen=True)
class Publish:
    contents: dict[str, bytes]


@dataclass(frozen=True)
class Subscribe:
    names: set[str]


@dataclass(frozen=True)
class Unsubscribe:
    names: set[str]


@dataclass(frozen=True)
class Deliver:
    """The client reads one response, and accepts or rejects it."""

    accept: bool


@dataclass(frozen=True)
class Reconnect:
    """The stream breaks; what was under way is lost."""


Step = Publish | Subscribe | Unsubscribe | Deliver | Reconnect

steps = st.lists(
    st.one_of(
        contents.map(Publish),
        names.map(Subscribe),
        names.map(Unsubscribe),
        st.booleans().map(Deliver),
        st.just(Reconnect()),
    ),
    max_size=40,
)


@dataclass
class World:
    """The server's edition, and the responses on their way to the client."""

    type_url: str = T
    edition: Edition = field(default_factory=lambda: Edition(Snapshot.EMPTY, 0))
    sent: list[Response] = field(default_factory=list)
    nonces: int = 0

    def publish(self, contents: dict[str, bytes]) -> None:
        resources = [Resource.of(self.type_url, name, body) for name, body in contents.items()]
        self.edition = Edition(Snapshot.of(*resources), self.edition.sequence + 1)

    def pump(self, stream: DeltaStream | SotwStream) -> Response | None:
        self.nonces += 1
        response = stream.respond(self.edition, str(self.nonces))
        if response is not None:
            told = [r.name for r in response.resources] + list(response.removed)
            assert len(told) == len(set(told)), "a name is never repeated in one response"
            self.sent.append(response)
            again = stream.respond(self.edition, "again")
            assert again is None, "nothing is sent without a change"
        return response


@dataclass
class DeltaClient:
    """What a correct client of the incremental protocol knows and says."""

    world: World
    stream: DeltaStream = field(default_factory=lambda: DeltaStream(T))
    wanted: set[str] = field(default_factory=set)
    held: dict[str, Resource] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        match step:
            case Publish(contents):
                self.world.publish(contents)
            case Subscribe(names):
                self.wanted |= names
                self.stream.receive(DeltaRequest(T, tuple(sorted(names))))
            case Unsubscribe(names):
                self.wanted -= names
                for name in names:
                    self.held.pop(name, None)
                self.stream.receive(DeltaRequest(T, (), tuple(sorted(names))))
            case Deliver(accept):
                self.deliver(accept)
            case Reconnect():
                self.reconnect()
        self.world.pump(self.stream)

    def deliver(self, accept: bool) -> None:
        if not self.world.sent:
            return
        response = self.world.sent.pop(0)
        for resource in response.resources:
            if resource.name in self.wanted and accept:
                self.held[resource.name] = resource
        for name in response.removed:
            self.held.pop(name, None)
        rejection = None if accept else "bad"
        answer = self.stream.receive(DeltaRequest(T, nonce=response.nonce, rejection=rejection))
        assert answer is not None
        assert answer.response is response

    def reconnect(self) -> None:
        self.world.sent.clear()
        self.stream = DeltaStream(T)
        held = {name: resource.version for name, resource in self.held.items()}
        self.stream.receive(DeltaRequest(T, tuple(sorted(self.wanted)), (), held))


@dataclass
class SotwClient:
    """What a correct client of the state-of-the-world protocol knows and says."""

    world: World
    wanted: set[str] = field(default_factory=set)
    held: dict[str, Resource] = field(default_factory=dict)
    version: str = ""
    nonce: str = ""
    stream: SotwStream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = SotwStream(self.world.type_url)

    def take(self, step: Step) -> None:
        match step:
            case Publish(contents):
                self.world.publish(contents)
            case Subscribe(names):
                self.want(self.wanted | names)
            case Unsubscribe(names):
                self.want(self.wanted - names)
            case Deliver(accept):
                self.deliver(accept)
            case Reconnect():
                self.world.sent.clear()
                self.nonce = ""
                self.stream = SotwStream(self.world.type_url)
                self.ask()
        self.world.pump(self.stream)

    def want(self, wanted: set[str]) -> None:
        self.wanted = wanted
        self.held = {name: resource for name, resource in self.held.items() if name in wanted}
        self.ask()

    def ask(self, rejection: str | None = None) -> None:
        names = tuple(sorted(self.wanted))
        self.stream.receive(SotwRequest(self.world.type_url, names, self.version, self.nonce, rejection))

    def deliver(self, accept: bool) -> None:
        if not self.world.sent:
            return
        response = self.world.sent.pop(0)
        self.nonce = response.nonce
        if not accept:
            self.ask("bad")
            return
        self.version = response.version
        if self.world.type_url in FULL_STATE_TYPES:
            self.held.clear()
        self.held.update({r.name: r for r in response.resources if r.name in self.wanted})
        self.ask()


def expected(world: World, wanted: set[str]) -> dict[str, Resource]:
    table = world.edition.snapshot.table(world.type_url)
    return {name: table[name] for name in wanted if name in table}


@settings(max_examples=400, deadline=None)
@given(steps)
def test_an_incremental_client_converges_to_the_snapshot(history: list[Step]) -> None:
    client = DeltaClient(World())
    for step in history:
        client.take(step)
    # What it rejected it does not get again until it changes, so let everything change, and be accepted.
    client.take(Publish(dict.fromkeys(NAMES[:2], b"final")))
    while client.world.sent:
        client.take(Deliver(True))
    assert client.held == expected(client.world, client.wanted)


@settings(max_examples=200, deadline=None)
@given(steps.map(lambda history: [s for s in history if s != Deliver(False)]))
def test_an_incremental_client_that_rejects_nothing_converges_without_a_last_change(history: list[Step]) -> None:
    client = DeltaClient(World())
    for step in history:
        client.take(step)
    while client.world.sent:
        client.take(Deliver(True))
    assert client.held == expected(client.world, client.wanted)


@settings(max_examples=400, deadline=None)
@given(steps, st.sampled_from([T, LISTENER]))
def test_a_state_of_the_world_client_converges_to_the_snapshot(history: list[Step], type_url: str) -> None:
    client = SotwClient(World(type_url))
    client.take(Subscribe({"a"}))
    for step in history:
        client.take(step)
    client.take(Publish(dict.fromkeys(NAMES, b"final")))
    while client.world.sent:
        client.take(Deliver(True))
    assert client.held == expected(client.world, client.wanted)
