"""Many types on one aggregated stream: their order, what a changed cluster needs, and where their number ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds.errors import StreamError
from xds.ledger import Edition, Response
from xds.messages import encode_discovery
from xds.services import MAX_TYPES, Discovery, method
from xds.snapshot import Reference, Resource, Snapshot, type_url
from xds.subscription import FULL_STATE_TYPES

CLUSTER = type_url("envoy.config.cluster.v3.Cluster")
ENDPOINTS = type_url("envoy.config.endpoint.v3.ClusterLoadAssignment")
LISTENER = type_url("envoy.config.listener.v3.Listener")
ROUTES = type_url("envoy.config.route.v3.RouteConfiguration")
SECRETS = type_url("envoy.extensions.transport_sockets.tls.v3.Secret")
TYPES = (LISTENER, ROUTES, ENDPOINTS, SECRETS, CLUSTER)
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
INCREMENTAL, STATE_OF_THE_WORLD = ADS + "DeltaAggregatedResources", ADS + "StreamAggregatedResources"
both_protocols = pytest.mark.parametrize("path", [INCREMENTAL, STATE_OF_THE_WORLD])


def cluster(name: str, body: bytes = b"") -> Resource:
    return Resource.of(CLUSTER, name, body, references=[Reference(ENDPOINTS, name)])


def endpoints(name: str, body: bytes = b"") -> Resource:
    return Resource.of(ENDPOINTS, name, body)


def bundle(name: str, body: bytes = b"") -> Snapshot:
    """A cluster, its endpoints, and what leads there."""
    rest = (Resource.of(url, "one", name.encode() + body) for url in (SECRETS, LISTENER, ROUTES))
    return Snapshot.of(cluster(name, body), endpoints(name, body), *rest)


class Aggregated:
    """An aggregated stream, and a client that wants the given names of each type."""

    def __init__(self, path: str, *types: str, names: tuple[str, ...] = ("*",)) -> None:
        self.discovery = Discovery(method(path))
        self._sequence = 0
        self._edition = Edition(Snapshot.EMPTY, 0)
        for url in types:
            self.want(url, *names)

    def want(self, url: str, *names: str) -> None:
        form, field = "DiscoveryRequest", "resource_names"
        if self.discovery.method.delta:
            form, field = "DeltaDiscoveryRequest", "resource_names_subscribe"
        self.discovery.receive(encode_discovery(form, type_url=url, **{field: names}))

    def publish(self, snapshot: Snapshot) -> list[Response]:
        """Everything that is said about it, in order."""
        self._sequence += 1
        self._edition = Edition(snapshot, self._sequence)
        return self.again()

    def again(self) -> list[Response]:
        """Everything that is still to be said about what was published last, in order."""
        said: list[Response] = []
        while response := self.discovery.respond(self._edition, f"{self._sequence}.{len(said)}"):
            said.append(response)
        return said


def types_of(said: list[Response]) -> list[str]:
    return [response.type_url for response in said]


@both_protocols
def test_what_is_referred_to_comes_before_what_refers_to_it(path: str) -> None:
    said = Aggregated(path, *TYPES).publish(bundle("c"))
    assert types_of(said) == [SECRETS, CLUSTER, ENDPOINTS, LISTENER, ROUTES]


def test_removals_come_last_and_in_the_opposite_order() -> None:
    stream = Aggregated(INCREMENTAL, *TYPES)
    stream.publish(bundle("old"))
    said = stream.publish(bundle("new"))
    assert types_of(said) == [SECRETS, CLUSTER, ENDPOINTS, LISTENER, ROUTES, ENDPOINTS, CLUSTER]
    assert [response.removed for response in said[-2:]] == [("old",), ("old",)]
    assert types_of(stream.publish(Snapshot.EMPTY)) == [ROUTES, LISTENER, ENDPOINTS, CLUSTER, SECRETS]


def test_a_state_of_the_world_client_keeps_an_old_cluster_until_nothing_leads_there() -> None:
    stream = Aggregated(STATE_OF_THE_WORLD, *TYPES)
    stream.publish(bundle("old"))
    said = stream.publish(bundle("new"))
    clusters = [{r.name for r in response.resources} for response in said if response.type_url == CLUSTER]
    assert types_of(said) == [SECRETS, CLUSTER, ENDPOINTS, LISTENER, ROUTES, CLUSTER]
    assert clusters == [{"new", "old"}, {"new"}]


def test_a_client_that_asks_by_name_loses_no_cluster_before_it_asked_for_all_of_the_next() -> None:
    def routed(name: str) -> Snapshot:
        return Snapshot.of(
            Resource.of(ROUTES, "one", name.encode(), references=[Reference(CLUSTER, name)]),
            cluster(name),
            endpoints(name),
        )

    stream = Aggregated(STATE_OF_THE_WORLD, ROUTES, names=("one",))
    for url in (CLUSTER, ENDPOINTS):
        stream.want(url, "old")
    stream.publish(routed("old"))
    assert types_of(stream.publish(routed("new"))) == [ROUTES]
    stream.want(CLUSTER, "old", "new")
    (both,) = stream.again()
    assert {resource.name for resource in both.resources} == {"old", "new"}
    stream.want(ENDPOINTS, "new")
    told, removal = stream.again()
    assert told.type_url == ENDPOINTS
    assert [resource.name for resource in removal.resources] == ["new"]


@both_protocols
def test_a_changed_cluster_is_followed_by_its_unchanged_endpoints_and_by_no_others(path: str) -> None:
    stream = Aggregated(path, CLUSTER, ENDPOINTS)
    others = (cluster("other"), endpoints("other"), endpoints("c"))
    stream.publish(Snapshot.of(cluster("c", b"1"), *others))
    said = stream.publish(Snapshot.of(cluster("c", b"2"), *others))
    assert types_of(said) == [CLUSTER, ENDPOINTS]
    assert [r.name for r in said[1].resources] == ["c"]
    assert stream.publish(Snapshot.of(cluster("c", b"2"), *others)) == []


@both_protocols
def test_a_changed_cluster_brings_no_endpoints_that_were_not_asked_for(path: str) -> None:
    stream = Aggregated(path, CLUSTER, ENDPOINTS, names=("*",))
    stream.want(ENDPOINTS, "other")
    if stream.discovery.method.delta:
        unsubscribe = {"resource_names_unsubscribe": ["*"]}
        stream.discovery.receive(encode_discovery("DeltaDiscoveryRequest", type_url=ENDPOINTS, **unsubscribe))
    stream.publish(Snapshot.of(cluster("c", b"1"), endpoints("c")))
    assert types_of(stream.publish(Snapshot.of(cluster("c", b"2"), endpoints("c")))) == [CLUSTER]


def test_no_stream_asks_for_more_types_than_the_limit() -> None:
    stream = Aggregated(INCREMENTAL, *map(str, range(MAX_TYPES)))
    with pytest.raises(StreamError, match="more than"):
        stream.want("one more")


def test_virtual_hosts_are_served_incrementally_only() -> None:
    service = "/envoy.service.route.v3.VirtualHostDiscoveryService/"
    assert method(service + "DeltaVirtualHosts").delta
    with pytest.raises(StreamError, match="no method"):
        method(service + "StreamVirtualHosts")


@dataclass
class Reader:
    """A client that wants everything and accepts everything, as it reads one response after the other."""

    incremental: bool
    held: dict[str, dict[str, Resource]] = field(default_factory=dict)
    warming: set[str] = field(default_factory=set)

    def read(self, response: Response) -> None:
        table = self.held.setdefault(response.type_url, {})
        news = {resource.name: resource for resource in response.resources}
        if response.type_url == CLUSTER:
            changed = {name for name, r in news.items() if name not in table or table[name].version != r.version}
            self.warming |= {name for name in changed if news[name].references}
        if response.type_url == ENDPOINTS:
            self.warming -= news.keys()
        if response.type_url in FULL_STATE_TYPES and not self.incremental:
            table.clear()
        table.update(news)
        for name in response.removed:
            del table[name]

    def dangling(self) -> list[Reference]:
        """What something that is held refers to, and is not."""
        return [
            reference
            for table in self.held.values()
            for resource in table.values()
            for reference in resource.references
            if reference.name not in self.held.get(reference.type_url, {})
        ]


def leading(names: dict[str, bytes], clusters: dict[str, bytes]) -> Snapshot:
    """Listeners that lead to clusters of their names, and those clusters' endpoints."""
    wanted = {**dict.fromkeys(names, b""), **clusters}
    listeners = (Resource.of(LISTENER, n, body, references=[Reference(CLUSTER, n)]) for n, body in names.items())
    return Snapshot.of(*listeners, *(cluster(n, b) for n, b in wanted.items()), *(endpoints(n) for n in wanted))


bodies = st.dictionaries(st.sampled_from("abc"), st.sampled_from([b"1", b"2"]))


@both_protocols
@given(history=st.lists(st.builds(leading, bodies, bodies), max_size=6))
def test_at_no_moment_does_anything_lead_nowhere_nor_a_changed_cluster_wait(path: str, history: list[Snapshot]) -> None:
    stream = Aggregated(path, *TYPES)
    reader = Reader(incremental=stream.discovery.method.delta)
    for snapshot in history:
        for response in stream.publish(snapshot):
            reader.read(response)
            upward = [reference for reference in reader.dangling() if reference.type_url == CLUSTER]
            assert upward == [], "no listener leads to a cluster that is not there"
        assert reader.dangling() == []
        assert reader.warming == set()
