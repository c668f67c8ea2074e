"""Break-glass through two real Envoys: traffic of every kind goes on over drift, and ends with the order."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from typing import Literal

import pytest

from attestation.breakglass import Order, Reach, Scope, Signed, to_text
from authority.api.answers import GlassBroken, GlassMended, Reloaded
from proofbeat import admin
from proofbeat.ephemeral.clock import now
from telemetry.names import Event
from tests.system.alive import Alive
from tests.system.closing.mesh import WITHIN, Mesh, mesh
from tests.unit.policies.operators import KEYS, rules

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: open connections are ended by SOCK_DESTROY")


@pytest.fixture(scope="module", params=["sds", "xds"])
def at(request: pytest.FixtureRequest) -> Iterator[Alive[Mesh]]:
    mode: Literal["sds", "xds"] = request.param
    made = Alive(mesh(mode))
    yield made
    made.end()


async def named(mesh: Mesh) -> None:
    """The mesh's floor names operators."""
    layout = mesh.scene.layout
    spec = {"mode": "enforce", "breakGlass": rules()}
    floor = {
        "apiVersion": "proofbeat.dev/v1alpha1",
        "kind": "AttestationPolicy",
        "metadata": {"name": "operators", "namespace": "proofbeat-system"},
        "spec": spec,
    }
    (layout.policies / "operators.yaml").write_text(json.dumps(floor))
    await admin.ask(layout.authority_admin, "POST", "/admin/policies", Reloaded)


async def broken(mesh: Mesh) -> str:
    """For web, by two operators; its id."""
    layout, begins = mesh.scene.layout, int(time.time())
    order = Order(
        trust_domain=layout.trust_domain,
        scope=Scope(Reach.REGISTRATIONS, (mesh.web.side.name,), (mesh.web.side.spiffe_id,)),
        issued_at=begins,
        not_before=begins,
        not_after=begins + 600,
        reason="a page that nobody referenced",
        least_epoch=1,
        salt=secrets.token_hex(16),
    )
    document = Signed(order)
    for name in ("ada", "bob"):
        document = document.with_signature(KEYS[name])
    body = {"order": to_text(document)}
    return (await admin.ask(layout.authority_admin, "POST", "/admin/breakglass", GlassBroken, body)).id


def test_traffic_goes_on_over_drift_while_an_order_is_in_force_and_ends_with_it(at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await named(mesh)
        await mesh.flows()
        began, identity = now(), await broken(mesh)
        assert await mesh.web.watch.until(Event.BREAK_GLASS, began, within=WITHIN) is not None
        drifted = now()
        with mesh.drift():
            excepted = await mesh.web.watch.until(Event.EXCEPTED, drifted, within=WITHIN)
            assert excepted is not None and excepted["open_by_break_glass"]
            for _ in range(3):
                await mesh.traffic.until_served(now())
            assert mesh.web.watch.first(Event.CLOSED, drifted) is None
            assert mesh.traffic.ledger.refusals(mesh.traffic.all, began, now()) == []
            over = now()
            await admin.ask(
                mesh.scene.layout.authority_admin, "POST", "/admin/breakglass/end", GlassMended, {"id": identity}
            )
            closed = await mesh.closed(over)
            await mesh.traffic.until_refused(over)
            await mesh.refused_for_a_while()
        await mesh.opened(closed, now())

    at.told(story)
