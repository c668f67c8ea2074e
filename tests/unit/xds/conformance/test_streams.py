"""What go-control-plane and java-control-plane test of their servers, asked of ours by gRPC's own client.

docs/xds-conformance.md says which of their cases each test stands for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from tests.unit.xds.conformance.core import ADS, PATIENCE, Core, DeltaCall, SotwCall, connected
from xds.acks import Verdict
from xds.admission import Admission
from xds.listening import Endpoint
from xds.server import Server
from xds.snapshot import Resource, Snapshot, type_url

CLUSTER = type_url("envoy.config.cluster.v3.Cluster")
ENDPOINTS = type_url("envoy.config.endpoint.v3.ClusterLoadAssignment")
LISTENER = type_url("envoy.config.listener.v3.Listener")
ROUTES = type_url("envoy.config.route.v3.RouteConfiguration")
SCOPED_ROUTES = type_url("envoy.config.route.v3.ScopedRouteConfiguration")
VIRTUAL_HOST = type_url("envoy.config.route.v3.VirtualHost")
SECRET = type_url("envoy.extensions.transport_sockets.tls.v3.Secret")
EXTENSION = type_url("envoy.config.core.v3.TypedExtensionConfig")
RUNTIME = type_url("envoy.service.runtime.v3.Runtime")
OPAQUE = type_url("some.type.that.Nobody.Knows")
TYPES = (CLUSTER, ENDPOINTS, LISTENER, SCOPED_ROUTES, ROUTES, VIRTUAL_HOST, SECRET, EXTENSION, RUNTIME, OPAQUE)
NAMED = tuple(url for url in TYPES if url not in (CLUSTER, LISTENER))

# envoy/service/*/v3/*.proto
SERVICES = {
    CLUSTER: ("cluster.v3.ClusterDiscoveryService", "Clusters"),
    ENDPOINTS: ("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    LISTENER: ("listener.v3.ListenerDiscoveryService", "Listeners"),
    ROUTES: ("route.v3.RouteDiscoveryService", "Routes"),
    SCOPED_ROUTES: ("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes"),
    VIRTUAL_HOST: ("route.v3.VirtualHostDiscoveryService", "VirtualHosts"),
    SECRET: ("secret.v3.SecretDiscoveryService", "Secrets"),
    EXTENSION: ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs"),
    RUNTIME: ("runtime.v3.RuntimeDiscoveryService", "Runtime"),
    OPAQUE: ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources"),
}
STREAMED = [url for url in SERVICES if url != VIRTUAL_HOST]


def path_of(url: str, verb: str) -> str:
    service, what = SERVICES[url]
    return f"/envoy.service.{service}/{verb}{what}"


def everything(body: bytes = b"1") -> Snapshot:
    return Snapshot.of(*(Resource.of(url, "one", body) for url in TYPES))


class Stage:
    """A server and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.verdicts: list[Verdict] = []
        self._judged = asyncio.Event()
        rules = Admission(frozenset({os.getuid()}))
        self.server = Server(Endpoint(folder / "xds.sock"), rules, on_verdict=self._judge)

    def _judge(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self._judged.set()

    async def judged(self, count: int) -> list[Verdict]:
        """The verdicts, once there are `count`."""
        async with asyncio.timeout(PATIENCE):
            while len(self.verdicts) < count:
                self._judged.clear()
                await self._judged.wait()
        return self.verdicts

    async def empty(self) -> None:
        """No stream is left."""
        async with asyncio.timeout(PATIENCE):
            while self.server.streams:  # noqa: ASYNC110 -- a stream that ends without an answer owed tells nobody
                await asyncio.sleep(0.005)


def play(folder: Path, scene: Callable[[Stage, Core], Awaitable[None]], snapshot: Snapshot | None = None) -> None:
    """A scene between our server and gRPC's client; `snapshot` is published before, by default `everything`."""

    async def scenario() -> None:
        stage = Stage(folder)
        async with stage.server as server:
            server.publish(everything() if snapshot is None else snapshot)
            with connected(folder / "xds.sock") as core:
                await scene(stage, core)

    asyncio.run(scenario())


@pytest.mark.parametrize("url", STREAMED)
def test_every_service_answers_by_state_of_the_world(url: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.sotw(path_of(url, "Stream"))
        call.ask(url, "one")
        told = await call.told()
        assert (told.type_url, [r.type_url for r in told.resources], told.nonce != "") == (url, [url], True)
        assert told.version_info == stage.server.snapshot.version(url)
        call.ask(url, "one", after=told)
        (verdict,) = await stage.judged(1)
        assert (verdict.type_url, verdict.resources, verdict.accepted) == (url, ("one",), True)

    play(tmp_path, scene)


@pytest.mark.parametrize("url", SERVICES)
def test_every_service_answers_incrementally(url: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(path_of(url, "Delta"))
        call.ask(url, "one")
        told = await call.told()
        (resource,) = told.resources
        assert (told.type_url, resource.name, told.nonce != "") == (url, "one", True)
        held = stage.server.snapshot.get(url, "one")
        assert held is not None
        assert resource.version == held.version
        call.answer(told)
        (verdict,) = await stage.judged(1)
        assert (verdict.type_url, verdict.resources, verdict.accepted) == (url, ("one",), True)

    play(tmp_path, scene)


@pytest.mark.parametrize("url", SERVICES)
def test_every_service_answers_the_star_incrementally(url: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(path_of(url, "Delta"))
        call.ask(url, "*")
        assert [resource.name for resource in (await call.told()).resources] == ["one"]

    play(tmp_path, scene)


@pytest.mark.parametrize("url", [url for url in SERVICES if url != OPAQUE])
def test_a_service_of_one_type_needs_no_type_in_the_request(url: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(path_of(url, "Delta"))
        call.ask("", "one")
        assert (await call.told()).type_url == url

    play(tmp_path, scene)


@pytest.mark.parametrize("verb", ["Stream", "Delta"])
def test_an_aggregated_request_without_a_type_ends_its_call(verb: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        path = ADS + verb + "AggregatedResources"
        call: SotwCall | DeltaCall = core.sotw(path) if verb == "Stream" else core.delta(path)
        call.ask("", "one")
        status, details = await call.status()
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert "type_url" in details
        await stage.empty()

    play(tmp_path, scene)


def test_an_aggregated_state_of_the_world_call_answers_each_type_once_and_accepting_brings_nothing_more(
    tmp_path: Path,
) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.sotw(ADS + "StreamAggregatedResources")
        call.ask(LISTENER)
        call.ask(CLUSTER)
        for url in NAMED:
            call.ask(url, "one")
        told = [await call.told() for _ in TYPES]
        assert sorted(response.type_url for response in told) == sorted(TYPES)
        for response in told:
            call.ask(response.type_url, *([] if response.type_url in (LISTENER, CLUSTER) else ["one"]), after=response)
        assert all(verdict.accepted for verdict in await stage.judged(len(TYPES)))
        stage.server.publish(everything(b"2"))
        assert (await call.told()).version_info == stage.server.snapshot.version(SECRET), "and not an old response"

    play(tmp_path, scene)


def test_an_aggregated_incremental_call_answers_each_type_once_and_accepting_brings_nothing_more(
    tmp_path: Path,
) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(ADS + "DeltaAggregatedResources")
        call.ask(LISTENER)
        call.ask(CLUSTER)
        for url in NAMED:
            call.ask(url, "one")
        told = [await call.told() for _ in TYPES]
        assert sorted(response.type_url for response in told) == sorted(TYPES)
        for response in told:
            call.answer(response)
        assert all(verdict.accepted for verdict in await stage.judged(len(TYPES)))
        stage.server.publish(everything(b"2"))
        bodies = [resource.resource.value for resource in (await call.told()).resources if resource.resource]
        assert bodies == [b"2"], "and not an old response"

    play(tmp_path, scene)


def test_types_that_nobody_knows_are_kept_apart_on_one_call(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(ADS + "DeltaAggregatedResources")
        for number in range(10):
            call.ask(f"{OPAQUE}{number % 2}", str(number))
        names = {}
        for _ in range(10):
            told = await call.told()
            names[told.resources[0].name] = told.type_url
        assert names == {str(number): f"{OPAQUE}{number % 2}" for number in range(10)}
        call.finish()
        assert (await call.status())[0] is grpc.StatusCode.OK
        await stage.empty()

    opaque = (Resource.of(f"{OPAQUE}{number % 2}", str(number), b"") for number in range(10))
    play(tmp_path, scene, Snapshot.of(*opaque))


def test_of_state_of_the_world_requests_for_a_type_the_newest_counts(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.sotw(ADS + "StreamAggregatedResources")
        for number in range(10):
            call.ask(f"{OPAQUE}{number % 2}", str(number))
        call.ask(OPAQUE, "last")
        while (await call.told()).type_url != OPAQUE:
            pass
        stage.server.publish(Snapshot.of(*(Resource.of(f"{OPAQUE}{n % 2}", str(n), b"new") for n in range(10))))
        told = [await call.told(), await call.told()]
        assert sorted(response.type_url for response in told) == [OPAQUE + "0", OPAQUE + "1"]
        assert [len(response.resources) for response in told] == [1, 1]

    opaque = (Resource.of(f"{OPAQUE}{number % 2}", str(number), b"") for number in range(10))
    play(tmp_path, scene, Snapshot.of(*opaque, Resource.of(OPAQUE, "last", b"")))


@pytest.mark.parametrize("url", SERVICES)
def test_a_call_that_is_broken_off_is_forgotten_and_awaited_by_no_publication(url: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(path_of(url, "Delta"))
        call.ask(url, "one")
        await call.told()
        publication = stage.server.publish(everything(b"2"))
        assert not publication.settled
        call.cancel()
        settlement = await publication.acknowledged(PATIENCE)
        assert (len(settlement.gone), settlement.pending) == (1, ())
        await stage.empty()

    play(tmp_path, scene)


@pytest.mark.parametrize("url", SERVICES)
def test_a_closing_server_ends_every_call_with_unavailable(url: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(path_of(url, "Delta"))
        call.ask(url, "one")
        await call.told()
        await stage.server.close()
        status, details = await call.status()
        assert (status, details) == (grpc.StatusCode.UNAVAILABLE, "the server is closing")

    play(tmp_path, scene)


def test_a_stale_nonce_is_passed_over_and_the_fresh_one_counts(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.sotw(ADS + "StreamAggregatedResources")
        call.ask(SECRET, "one")
        first = await call.told()
        stale = type(first)(nonce="xyz", version_info=first.version_info, type_url=SECRET)
        call.ask(SECRET, "one", "two", after=stale)
        call.ask(SECRET, "one", after=first)
        (verdict,) = await stage.judged(1)
        assert (verdict.nonce, verdict.accepted) == (first.nonce, True)
        stage.server.publish(everything(b"2").replacing(Resource.of(SECRET, "two", b"")))
        assert [any_.value for any_ in (await call.told()).resources] == [b"2"], "the stale request subscribed nothing"

    play(tmp_path, scene)


def test_a_rejection_reaches_the_caller_with_the_client_s_reason_and_the_next_content_is_accepted(
    tmp_path: Path,
) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.sotw(path_of(SECRET, "Stream"))
        call.ask(SECRET, "one")
        first = await call.told()
        call.ask(SECRET, "one", after=first)
        refused = stage.server.publish(everything(b"bad"))
        second = await call.told()
        call.reject(second, "one", version=first.version_info, reason="one: no such key")
        (rejection,) = (await refused.acknowledged(PATIENCE)).rejected
        assert (rejection.reason, rejection.blamed) == ("one: no such key", ("one",))
        mended = stage.server.publish(everything(b"good"))
        call.ask(SECRET, "one", after=await call.told())
        assert (await mended.acknowledged(PATIENCE)).in_force

    play(tmp_path, scene)


def test_an_incremental_rejection_reaches_the_caller_with_the_client_s_reason(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(path_of(SECRET, "Delta"))
        call.ask(SECRET, "one")
        call.answer(await call.told(), "one: no such key")
        (verdict,) = await stage.judged(1)
        assert (verdict.accepted, verdict.reason, verdict.blamed) == (False, "one: no such key", ("one",))

    play(tmp_path, scene)


def test_a_client_that_reconnects_is_told_what_changed_and_what_is_gone_and_nothing_else(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        first = core.delta(path_of(SECRET, "Delta"))
        first.ask(SECRET, "kept", "changed", "gone")
        held = {resource.name: resource.version for resource in (await first.told()).resources}
        first.cancel()
        kept, changed = Resource.of(SECRET, "kept", b"1"), Resource.of(SECRET, "changed", b"2")
        stage.server.publish(Snapshot.of(kept, changed))
        again = core.delta(path_of(SECRET, "Delta"))
        again.ask(SECRET, "kept", "changed", "gone", holding=held)
        told = await again.told()
        assert ([r.name for r in told.resources], told.removed_resources) == (["changed"], ["gone"])

    play(tmp_path, scene, Snapshot.of(*(Resource.of(SECRET, name, b"1") for name in ("kept", "changed", "gone"))))


def test_a_resource_is_asked_for_on_demand_and_its_absence_is_told_at_once_where_it_is_final(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(ADS + "DeltaAggregatedResources")
        call.ask(SECRET, "one")
        assert [r.name for r in (await call.told()).resources] == ["one"]
        call.ask(SECRET, "later")
        told = await call.told()
        assert ([r.name for r in told.resources], told.removed_resources) == ([], ["later"])
        stage.server.publish(stage.server.snapshot.replacing(Resource.of(SECRET, "later", b"1")))
        assert [r.name for r in (await call.told()).resources] == ["later"]

    play(tmp_path, scene, Snapshot.of(Resource.of(SECRET, "one", b"1"), complete=[SECRET]))


def test_heartbeats_resend_the_full_resource_with_its_lifetime_and_nothing_without_one(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(ADS + "DeltaAggregatedResources")
        call.ask(EXTENSION, "mortal", "immortal")
        assert len((await call.told()).resources) == 2
        for _ in range(2):
            assert stage.server.heartbeat() == 1
            (beat,) = (await call.told()).resources
            assert beat.resource is not None
            assert beat.ttl is not None
            assert (beat.name, beat.resource.value, beat.ttl.total_seconds()) == ("mortal", b"1", 3.0)

    mortal = Resource.of(EXTENSION, "mortal", b"1", ttl=3)
    play(tmp_path, scene, Snapshot.of(mortal, Resource.of(EXTENSION, "immortal", b"1")))


def test_more_than_a_hundred_calls_share_a_connection(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        calls = [core.delta(path_of(SECRET, "Delta")) for _ in range(150)]
        for call in calls:
            call.ask(SECRET, "one")
        for call in calls:
            assert len((await call.told()).resources) == 1
        assert stage.server.streams == 150
        publication = stage.server.publish(everything(b"2"))
        for call in calls:
            call.answer(await call.told())
        assert (await publication.acknowledged(PATIENCE)).in_force
        for call in calls:
            call.finish()
        await stage.empty()

    play(tmp_path, scene)


@pytest.mark.parametrize("verb", ["Stream", "Delta"])
def test_a_call_that_does_not_read_is_told_the_newest_and_little_of_what_came_before(verb: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        path = path_of(SECRET, verb)
        call: SotwCall | DeltaCall = core.sotw(path) if verb == "Stream" else core.delta(path)
        call.ask(SECRET, "one")
        told = await call.told()
        for number in range(40):
            stage.server.publish(Snapshot.of(Resource.of(SECRET, "one", b"%02d" % number * 500_000)))
        newest = stage.server.snapshot.version(SECRET)
        read = 0
        while newest not in (getattr(told, "version_info", ""), getattr(told, "system_version_info", "")):
            told = await call.told()
            read += 1
        assert read < 20

    play(tmp_path, scene)
