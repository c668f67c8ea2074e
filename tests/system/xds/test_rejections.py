"""A real Envoy rejects one resource among good ones: the caller learns which, and why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.system.xds.rig import PATIENCE, Events, application, describe, envoy, make_server
from tests.system.xds.test_delivered import behind
from tests.system.xds.test_warming import IN_SEVEN_SECONDS, taken_into_use
from xds.messages import CLUSTER
from xds.resources import mesh
from xds.snapshot import Reference, Resource, type_url

NAMED_BROKEN = b"\x0a\x06broken"  # Cluster.name (field 1)
AT_NO_TIME = b"\x22\x00"  # Cluster.connect_timeout (field 4): zero breaks a constraint; Envoy throws away the response
FROM_NOWHERE = b"\x10\x03"  # Cluster.type (field 2): EDS, without saying from where; Envoy applies what is beside it


@pytest.mark.parametrize(
    ("api_type", "flaw", "why"),
    [
        ("DELTA_GRPC", AT_NO_TIME, "ConnectTimeout"),
        ("DELTA_GRPC", FROM_NOWHERE, "without an EDS config"),
        ("GRPC", FROM_NOWHERE, "without an EDS config"),
    ],
)
def test_a_bad_cluster_is_blamed_with_envoys_reason_and_the_good_one_beside_it_is_applied(
    tmp_path: Path, api_type: str, flaw: bytes, why: str
) -> None:
    async def scenario() -> None:
        async with application() as app, make_server(tmp_path / "xds.sock", Events()) as server:
            description = describe(tmp_path, app)
            service = description.service
            server.publish(behind(service, *mesh.listeners(service, ttl=None)))
            async with envoy(description, tmp_path, delivered=True, api_type=api_type) as proxy:
                await proxy.until_ready()
                good = server.snapshot.get(type_url(CLUSTER), service.upstreams[0].name)
                assert good is not None
                broken = Resource.of(type_url(CLUSTER), "broken", NAMED_BROKEN + flaw)
                renewed = Resource.of(
                    good.type_url, good.name, good.body + IN_SEVEN_SECONDS, references=good.references
                )
                publication = server.publish(server.snapshot.replacing(broken, renewed))
                settlement = await publication.acknowledged(PATIENCE)
                (rejection,) = settlement.rejected
                assert rejection.blamed == ("broken",)
                assert why in rejection.reason
                assert not settlement.in_force
                await taken_into_use(proxy)
                mended = server.publish(server.snapshot.without(Reference(broken.type_url, broken.name)))
                assert not (await mended.acknowledged(PATIENCE)).pending

    asyncio.run(scenario())
