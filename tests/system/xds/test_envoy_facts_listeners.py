"""What Envoy does with delivered listeners and clusters: what cuts open connections, and what must not."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.delivery.ending import Ending
from tests.system.closing.clients import KeptAlive, Tcp
from tests.system.xds.facts import (
    HTTP,
    TCP,
    World,
    described,
    ends,
    everything,
    filters,
    without_content,
    world,
)
from tests.system.xds.pki import Authority
from tests.system.xds.rig import LOCALHOST, PATIENCE, Events, envoy, free_port, make_server, until
from tests.system.xds.sds import identity
from xds.acks import Publication, Verdict
from xds.resources import mesh
from xds.resources.clusters import peer_cluster
from xds.resources.service import HostPort
from xds.resources.transport import aggregated_source
from xds.snapshot import Reference, Resource, Snapshot

ADDED = "listener_manager.listener_added"
TTL = 1.0
LONG_TTL = 4.0
"""For stories that happen within a lifetime."""


@pytest.fixture(scope="module")
def at() -> Iterator[World]:
    with world(delivered=True) as made:
        yield made


def without_listeners(at: World) -> Snapshot:
    names = at.base.table(mesh.LISTENER_TYPE)
    return at.base.without(*(Reference(mesh.LISTENER_TYPE, name) for name in names))


def lasting(at: World, ttl: float | None) -> Snapshot:
    return at.base.replacing(*mesh.listeners(at.description.service, ttl=ttl))


# What cuts.


def test_removed_listeners_cut_all_that_is_open_or_in_flight_and_refuse_what_is_new(at: World) -> None:
    async def story() -> None:
        held = await at.held()
        await at.accepted(without_listeners(at))
        for client in held:
            await ends(client)
        await at.until_refused(KeptAlive, HTTP)
        await at.until_refused(Tcp, TCP)

    at.tells(story)


def test_a_changed_listener_cuts_what_runs_through_it(at: World) -> None:
    """Why routes, endpoints, secrets and filters are apart from listeners."""

    async def story() -> None:
        held = await at.held()
        other = replace(at.description.service, deny_reason="another-default")
        await at.accepted(at.base.replacing(*mesh.listeners(other, ttl=None)))
        for client in held:
            await ends(client)
        await at.until_served(Tcp, TCP)

    at.tells(story)


@pytest.mark.parametrize("quits", [True, False], ids=["asked to quit", "killed"])
def test_the_end_of_envoy_cuts_what_is_open(quits: bool) -> None:
    with world(delivered=True) as own:

        async def story() -> None:
            held, over = await own.held(), asyncio.Event()
            ending = Ending(own.server.client, own.description.admin_socket, over.set)
            assert not (ending.ask() if quits else ending.kill())
            await over.wait()
            ending.close()
            for client in held:
                await ends(client)
            assert await own.proxy.process.wait() == (0 if quits else -signal.SIGKILL)

        own.tells(story)


def test_with_the_time_that_envoy_drains_by_default_removed_listeners_leave_open_tcp() -> None:
    """Why it is started with none."""
    with world(delivered=True, command=draining) as own:

        async def story() -> None:
            held = await Tcp.open(*own.out(TCP))
            await held.ask()
            await own.accepted(without_listeners(own))
            await own.until_refused(Tcp, TCP)
            await held.ask()
            held.close()

        own.tells(story)


def draining(command: list[str]) -> list[str]:
    at = command.index("--drain-time-s")
    return command[:at] + command[at + 2 :]


# What must not cut.


def test_identical_heartbeats_in_full_modify_no_listener(at: World) -> None:
    async def story() -> None:
        await at.accepted(lasting(at, LONG_TTL))
        held = await at.held()
        before = await at.proxy.stat("listener_manager.listener_modified")
        answered = len(at.events.verdicts)
        for _ in range(20):
            assert at.server.heartbeat() == 1
        await at.events.until(lambda events: len(events.verdicts) == answered + 20)
        assert all(verdict.accepted and verdict.heartbeat for verdict in at.events.verdicts[answered:])
        assert await at.proxy.stat("listener_manager.listener_modified") == before
        for client in held:
            await client.ask()
            client.close()

    at.tells(story)


def test_changed_endpoints_routes_clusters_secrets_and_filters_leave_open_tcp_alone(at: World) -> None:
    async def story() -> None:
        held = await Tcp.open(*at.out(TCP))
        await held.ask()
        service = at.description.service
        others = tuple(replace(each, connection_per_request=True) for each in service.upstreams)
        await at.accepted(
            at.base.replacing(
                *identity(at.authority),
                *filters(ttl=60.0),
                *mesh.clusters(replace(service, upstreams=others)),
                *mesh.endpoints(service, {each.name: each.peers for each in others}),
            )
        )
        await held.ask()
        held.close()

    at.tells(story)


# Lifetimes.


def test_one_resend_without_a_lifetime_makes_a_listener_permanent(at: World) -> None:
    """Why everything that has one is always told with it."""

    async def story() -> None:
        await at.accepted(lasting(at, TTL))
        held = await Tcp.open(*at.out(TCP))
        await at.accepted(lasting(at, None))
        over = time.monotonic() + 2 * TTL
        while time.monotonic() < over:
            await held.ask()
            await asyncio.sleep(TTL / 20)
        held.close()

    at.tells(story)


def test_a_heartbeat_without_content_does_not_bring_an_expired_listener_back(at: World) -> None:
    async def story() -> None:
        service = at.description.service
        full = mesh.listeners(service, ttl=TTL)
        await at.accepted(at.base.replacing(*full))
        await ends(await Tcp.open(*at.out(TCP)))
        at.server.publish(at.base.replacing(*map(without_content, full)))
        answered = len(at.events.verdicts)
        assert at.server.heartbeat() == 1
        await at.events.until(lambda events: len(events.verdicts) > answered)
        assert not at.events.verdicts[-1].accepted
        assert not await at.serves(Tcp, TCP)

    at.tells(story)


def test_a_stream_reset_neither_trips_nor_extends_a_lifetime(at: World) -> None:
    async def story() -> None:
        await at.accepted(lasting(at, LONG_TTL))
        began = time.monotonic()
        held = await Tcp.open(*at.out(TCP))
        await held.ask()
        await asyncio.sleep(LONG_TTL / 2)
        await at.server.close()
        await at.server.start()
        await until(lambda: at.server.streams == 1)
        back = time.monotonic()
        await held.ask()
        await ends(held)
        assert time.monotonic() - began >= 0.9 * LONG_TTL, "it tripped"
        assert time.monotonic() - back <= 0.75 * LONG_TTL, "it was extended"

    at.tells(story)


# What is told, and how it is answered.


def test_envoy_asks_for_secrets_before_it_acknowledges_the_listener(tmp_path: Path) -> None:
    """Why they are served while that answer is outstanding."""

    async def scenario() -> None:
        description, events = described(tmp_path, 1, 1), Events()
        # Without peers: their clusters would ask for the secrets before any listener.
        listeners = Snapshot.of(*filters(), *everything(replace(description.service, upstreams=())))
        secrets = listeners.replacing(*identity(Authority("mesh")))
        followed: list[Publication] = []

        def judged(verdict: Verdict) -> None:
            if verdict.type_url == mesh.LISTENER_TYPE and not followed:
                followed.append(server.publish(secrets))
            events.verdict(verdict)

        async with (
            make_server(description.xds_socket, events, judged) as server,
            envoy(description, tmp_path, delivered=True),
        ):
            server.publish(listeners)
            await events.until(lambda _: bool(followed))
            settlement = await followed[0].acknowledged(PATIENCE)
            # It awaits an answer of whoever had asked by then, and of nobody else.
            assert {"default", "ROOTCA"} <= {name for each in settlement.accepted for name in each.resources}

    asyncio.run(scenario())


def test_one_bad_resource_rejects_the_whole_response_although_good_ones_are_applied(at: World) -> None:
    async def story() -> None:
        service = at.description.service
        moved = replace(service.inbound[TCP], listen=HostPort(LOCALHOST, free_port()))
        good = replace(service, inbound=(moved,), upstreams=())
        bad = Resource.of(mesh.LISTENER_TYPE, "bad", b"")
        before = await at.proxy.stat(ADDED)
        added = at.base.replacing(*mesh.clusters(good), *mesh.listeners(good, ttl=None), bad)
        (rejected,) = await rejections_of(at, added)
        assert set(rejected.resources) == {moved.name, "bad"}
        assert await at.proxy.stat(ADDED) == before + 1

    at.tells(story)


async def rejections_of(at: World, snapshot: Snapshot) -> list[Verdict]:
    """The base is served again at once, or the server would tell again what was good."""
    rejected: list[Verdict] = []

    def restore(verdict: Verdict) -> None:
        rejected.append(verdict)
        at.server.publish(at.base)

    publication = at.server.publish(snapshot)
    publication.on_rejected(restore)
    await publication.acknowledged(PATIENCE)
    await at.accepted(at.base)
    return rejected


# What it does not survive.


def test_a_static_cluster_that_takes_its_secrets_from_the_aggregated_stream_crashes_envoy(tmp_path: Path) -> None:
    """Why everything of an Envoy that is ours is delivered. When this fails, the restriction can go."""

    async def scenario() -> None:
        description = described(tmp_path, 1, 1)
        service = description.service

        def fatal(bootstrap: str) -> str:
            form: dict[str, Any] = json.loads(bootstrap)
            form["static_resources"]["clusters"].append(
                peer_cluster(service, aggregated_source(), service.upstreams[0])
            )
            return json.dumps(form)

        async with make_server(description.xds_socket, Events()) as server:
            server.publish(Snapshot.of(*identity(Authority("mesh"))))
            async with (
                envoy(description, tmp_path, delivered=True, bootstrap=fatal) as proxy,
                asyncio.timeout(PATIENCE),
            ):
                assert await proxy.process.wait() == -signal.SIGSEGV

    asyncio.run(scenario())
