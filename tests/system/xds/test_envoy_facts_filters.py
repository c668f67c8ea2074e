"""What Envoy does with delivered filters: whom a denial reaches, what a lifetime is worth, which key finds nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.system.closing.clients import ENDED, Http2, KeptAlive, Tcp, Upload, WebSocket
from tests.system.xds.facts import HTTP, TCP, World, filters, without_content, world
from tests.system.xds.rig import PATIENCE, call_once, until
from tests.system.xds.sds import identity
from xds.messages import encode_discovery
from xds.resources.denials import DeniedPeer, http_deny_peers
from xds.resources.ecds import EXTENSION_CONFIG_TYPE, extension_config
from xds.resources.rbac import tcp_allow_all, tcp_deny_all
from xds.snapshot import Reference, Resource, Snapshot, type_url

TTL = 1.0
SUBSCRIPTIONS = 6
SOON, OFTEN = 4.0, 40
"""Seconds, and how often Envoy looks for a server that is gone in less than these; by default it would ten times."""
LOOKED = "cluster.xds_cluster.upstream_cx_connect_fail"
BY_ITSELF = "rbac-outbound-tcp"


@pytest.fixture(scope="module")
def at() -> Iterator[World]:
    with world(delivered=False) as made:
        yield made


def denying(at: World) -> Snapshot:
    return at.base.replacing(*filters("file-modified:c-0123"))


def test_a_network_filters_denial_leaves_open_tcp_alone_and_refuses_new(at: World) -> None:
    async def story() -> None:
        held = await Tcp.open(*at.out(TCP))
        await held.ask()
        await at.accepted(denying(at))
        await at.until_refused(Tcp, TCP)
        await held.ask()
        held.close()

    at.tells(story)


def test_a_denial_leaves_requests_in_flight_alone_and_refuses_the_next_on_the_same_connection(at: World) -> None:
    async def story() -> None:
        kept = await KeptAlive.open(*at.out(HTTP))
        in_flight = [await kind.open(*at.out(HTTP)) for kind in (WebSocket, Http2, Upload)]
        for client in (kept, *in_flight):
            await client.ask()
        await at.accepted(denying(at))
        await at.until_refused(KeptAlive, HTTP)
        with pytest.raises(ConnectionRefusedError, match="403"):
            await kept.ask()
        for client in in_flight:
            await client.ask()
            client.close()
        kept.close()

    at.tells(story)


def test_a_configuration_of_the_wrong_type_is_rejected_and_the_old_one_stays(at: World) -> None:
    async def story() -> None:
        wrong = extension_config("rbac-outbound-http", tcp_deny_all("wrong"))
        settlement = await at.publish(at.base.replacing(wrong))
        assert [verdict.resources for verdict in settlement.rejected] == [("rbac-outbound-http",)]
        assert await at.serves(KeptAlive, HTTP)

    at.tells(story)


def test_a_removed_filter_refuses_what_asks_and_what_is_new(at: World) -> None:
    async def story() -> None:
        kept = await KeptAlive.open(*at.out(HTTP))
        await kept.ask()
        names = ("rbac-outbound-http", "rbac-outbound-tcp")
        await at.accepted(at.base.without(*(Reference(EXTENSION_CONFIG_TYPE, name) for name in names)))
        await at.until_refused(KeptAlive, HTTP)
        await at.until_refused(Tcp, TCP)
        with pytest.raises(ENDED):
            await kept.ask()
        kept.close()

    at.tells(story)


def test_without_a_lifetime_what_was_allowed_stays_allowed_when_the_server_is_gone(at: World) -> None:
    """Why every filter has one."""

    async def story() -> None:
        await at.server.close()
        assert await at.serves(Tcp, TCP)
        assert await at.serves(KeptAlive, HTTP)
        await at.server.start()

    at.tells(story)


def test_envoy_looks_for_its_server_without_a_pause_that_grows_and_is_back_within_moments(at: World) -> None:
    async def story() -> None:
        looked = await at.proxy.stat(LOOKED)
        await at.server.close()
        async with asyncio.timeout(SOON):
            while await at.proxy.stat(LOOKED) < looked + OFTEN:  # noqa: ASYNC110 -- Envoy has no event for it
                await asyncio.sleep(0.05)
        await at.server.start()
        async with asyncio.timeout(SOON):
            await until(lambda: at.server.streams == SUBSCRIPTIONS)

    at.tells(story)


# Lifetimes.


def lasting(at: World) -> tuple[Snapshot, Snapshot]:
    """With a filter that has a lifetime; and the same, whose heartbeats say no more than that."""
    full = extension_config(BY_ITSELF, tcp_allow_all(), ttl=TTL)
    return at.base.replacing(full), at.base.replacing(without_content(full))


async def beat(at: World) -> bool:
    """One heartbeat's answer: accepted or not."""
    answered = len(at.events.verdicts)
    assert at.server.heartbeat() == 1
    await at.events.until(lambda events: len(events.verdicts) > answered)
    verdict = at.events.verdicts[answered]
    assert verdict.heartbeat
    return verdict.accepted


def test_a_heartbeat_without_content_prolongs_and_is_rejected_after_expiry(at: World) -> None:
    async def story() -> None:
        full, bare = lasting(at)
        await at.accepted(full)
        at.server.publish(bare)
        for _ in range(6):
            assert await beat(at)
            await asyncio.sleep(TTL / 4)
            assert await at.serves(Tcp, TCP)
        async with asyncio.timeout(PATIENCE):
            while await at.serves(Tcp, TCP):
                pass
        assert not await beat(at)
        assert not await at.serves(Tcp, TCP)
        at.server.publish(full)
        assert await beat(at), "in full it is accepted"
        await at.until_served(Tcp, TCP)

    at.tells(story)


def test_the_state_of_the_world_has_no_heartbeat_without_content() -> None:
    """Why nothing with a lifetime is served by that protocol."""
    with world(delivered=False, api_type="GRPC") as own:

        async def story() -> None:
            allowed = extension_config(BY_ITSELF, tcp_allow_all())
            await own.accepted(own.base.replacing(wrapped(allowed, "first", content=True)))
            settlement = await own.publish(own.base.replacing(wrapped(allowed, "second", content=False)))
            assert [verdict.resources for verdict in settlement.rejected] == [(BY_ITSELF,)]

        own.tells(story)


def wrapped(resource: Resource, version: str, *, content: bool) -> Resource:
    """As that protocol gives a lifetime: inside a discovery Resource, in the place of the resource itself."""
    lasting: dict[str, object] = {"name": resource.name, "version": version, "ttl": {"seconds": 60}}
    if content:
        lasting["resource"] = {"type_url": resource.type_url, "value": resource.body}
    body = encode_discovery("Resource", **lasting)
    wrapper = {"type_url": type_url("envoy.service.discovery.v3.Resource"), "value": body}
    return replace(resource, version=version, sotw_entry=encode_discovery("DiscoveryResponse", resources=[wrapper]))


def test_envoy_asks_for_nothing_when_a_lifetime_ends(at: World) -> None:
    """If it did, the server would tell it again, and nothing would ever expire."""

    async def story() -> None:
        full, _ = lasting(at)
        await at.accepted(full)
        async with asyncio.timeout(PATIENCE):
            while await at.serves(Tcp, TCP):
                pass
        told = len(at.events.verdicts)
        await at.accepted(at.server.snapshot.replacing(*identity(at.authority)))
        assert {name for verdict in at.events.verdicts[told:] for name in verdict.resources} == {"default"}
        assert not await at.serves(Tcp, TCP)

    at.tells(story)


# Keys that nobody is found by.


def test_an_upper_case_fingerprint_is_accepted_and_denies_nobody(at: World) -> None:
    """Why a DeniedPeer takes only what Envoy itself would write."""

    async def story() -> None:
        leaf = at.authority.leaf("spiffe://example.org/app")
        caller = at.caller_with(leaf)
        denied = http_deny_peers([DeniedPeer("c-0123", fingerprints=(leaf.fingerprint,))])
        shouted = replace(
            denied, body=denied.body.replace(leaf.fingerprint.encode(), leaf.fingerprint.upper().encode())
        )
        assert shouted != denied
        await at.accepted(at.base.replacing(extension_config("rbac-inbound-http", denied)))
        async with asyncio.timeout(PATIENCE):
            while (await call_once(at.inbound, caller)).status != 403:
                pass
        await at.accepted(at.base.replacing(extension_config("rbac-inbound-http", shouted)))
        async with asyncio.timeout(PATIENCE):
            while (await call_once(at.inbound, caller)).status != 200:
                pass

    at.tells(story)
