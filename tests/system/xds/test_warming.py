"""A real Envoy takes a changed cluster into use at once, because its endpoints are told again after it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.system.xds.rig import Caller, Envoy, Events, application, describe, envoy, make_server
from tests.system.xds.test_delivered import behind
from xds.messages import CLUSTER, ENDPOINTS
from xds.resources import mesh
from xds.snapshot import Resource, type_url

AT_ONCE = 5.0
"""Seconds. Envoy would give up waiting for endpoints, and go on with none, after 15."""
IN_SEVEN_SECONDS = b"\x22\x02\x08\x07"  # Cluster.connect_timeout (field 4), which overrides what stands before it


async def taken_into_use(proxy: Envoy) -> None:
    """Envoy acknowledges a cluster before it is warm, and tells nobody when it is."""
    async with asyncio.timeout(AT_ONCE):
        while b'"7s"' not in (await proxy.admin("/config_dump?resource=dynamic_active_clusters"))[1]:  # noqa: ASYNC110 -- Envoy has no event for it
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])
def test_a_changed_cluster_is_in_use_at_once_though_its_endpoints_are_the_same(tmp_path: Path, api_type: str) -> None:
    async def scenario() -> None:
        events = Events()
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            description = describe(tmp_path, app)
            service = description.service
            server.publish(behind(service, *mesh.listeners(service, ttl=None)))
            async with envoy(description, tmp_path, delivered=True, api_type=api_type) as proxy:
                await proxy.until_ready()
                caller = await Caller.connect(proxy.outbound)
                await caller.until_status(200)
                told_before = len(events.verdicts)
                peer = server.snapshot.get(type_url(CLUSTER), service.upstreams[0].name)
                assert peer is not None
                renewed = Resource.of(
                    peer.type_url, peer.name, peer.body + IN_SEVEN_SECONDS, references=peer.references
                )
                server.publish(server.snapshot.replacing(renewed))
                await taken_into_use(proxy)
                told = {v.type_url for v in events.verdicts[told_before:] if peer.name in v.resources}
                assert told == {type_url(url) for url in (CLUSTER, ENDPOINTS)}
                await caller.until_status(200)
                await caller.close()

    asyncio.run(scenario())
