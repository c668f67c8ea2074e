"""Many types on one aggregated stream: their order, what a changed cluster needs, and where their number ends."""

from __future__ import annotations

import pytest

from xds.errors import StreamError
from xds.ledger import Edition, Response
from xds.messages import encode_discovery
from xds.services import MAX_TYPES, Discovery, method
from xds.snapshot import Reference, Resource, Snapshot, type_url

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
        edition = Edition(snapshot, self._sequence)
        said = []
        while response := self.discovery.respond(edition, f"{self._sequence}.{len(said)}"):
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
