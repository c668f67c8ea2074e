"""`bench violation`: a file is modified under traffic, again and again; when was it seen, refused, cut, open again?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from attestation.errors import Unavailable
from proofbeat.bench import mesh
from proofbeat.bench.figures import Budget, Distribution, Report
from proofbeat.demo.layout import OUT_FRESH, OUT_HTTP, OUT_TCP, Terms
from proofbeat.demo.ledger import Closure
from proofbeat.demo.load import Flow
from proofbeat.demo.scene import Scene
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import in_phase
from sidecar.states import Phase
from telemetry.names import Event

OPEN_CONNECTIONS = 100
NEW, KEPT = (0, 1), (2,)
HELD = tuple(range(3, 3 + OPEN_CONNECTIONS))
WITHIN_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Milliseconds. observed, refused_from_act: from the act; the rest from the observation.

    steps: what the sidecar itself did by when: began to close, wrote to Envoy, was acknowledged, was swept once.
    """

    observed: float
    refused_from_act: float
    last_served: float
    refused: float
    kept_refused: float
    cut: float
    closed: float
    recovered: float
    steps: Mapping[str, float]


async def run(*, quick: bool) -> Report:
    repeats = 10 if quick else 100
    async with mesh.scene(Terms(interval=1.0, freshness=8.0)) as scene:
        await mesh.open_both(scene)
        await scene.run_load(_flows(scene))
        samples = [await _sample(scene) for _ in range(repeats)]
        leaked = len(scene.ledger.leaked())
    refused = Distribution.of([each.refused for each in samples])
    cut = Distribution.of([each.cut for each in samples])
    return Report(
        "violation",
        {
            "act_to_observation": Distribution.of([each.observed for each in samples]),
            **{
                f"observation_to_{step}": Distribution.of([each.steps[step] for each in samples if step in each.steps])
                for step in ("began", "written", "acknowledged", "swept")
            },
            "act_to_own_envoy_refuses": Distribution.of([each.refused_from_act for each in samples]),
            "observation_to_last_new_connection_served": Distribution.of([each.last_served for each in samples]),
            "observation_to_own_envoy_refuses": refused,
            "observation_to_kept_alive_refused": Distribution.of([each.kept_refused for each in samples]),
            f"observation_to_{OPEN_CONNECTIONS}_connections_cut": cut,
            "observation_to_closed_verified": Distribution.of([each.closed for each in samples]),
            "repair_to_open": Distribution.of([each.recovered for each in samples]),
        },
        (
            Budget("own Envoy refuses new connections, p99 in ms after the observation", 10.0, refused.p99),
            Budget(f"{OPEN_CONNECTIONS} open connections cut, p99 in ms after the observation", 20.0, cut.p99),
            Budget("requests leaked", 0.0, float(leaked)),
        ),
        peers={"spire": {"missing": "SPIRE is not built by this checkout; it never cuts open connections"}},
    )


def _flows(scene: Scene) -> list[Flow]:
    """From db to web: new handshakes without a pause, kept-alive requests, and a hundred idle streams."""
    db = scene.layout.db.address
    return [
        Flow("new HTTP connections", "http", db, OUT_FRESH, pause=0.005),
        Flow("new TCP streams", "tcp", db, OUT_TCP, fresh=True, pause=0.005),
        Flow("kept-alive HTTP", "http", db, OUT_HTTP, pause=0.005),
        *(Flow(f"held stream {number}", "hold", db, OUT_TCP, pause=0.2) for number in range(OPEN_CONNECTIONS)),
    ]


async def _sample(scene: Scene) -> Sample:
    web, page = scene.web, scene.layout.web.page
    original = page.read_bytes()
    await _settle(scene, now())
    # 1. The act, and what the sidecar says of it.
    act = now()
    page.write_bytes(original + b"<!-- changed -->\n")
    violation = await web.watch.until(Event.VIOLATION, act, within=WITHIN_SECONDS)
    closed = await web.watch.until(Event.CLOSED, act, within=WITHIN_SECONDS)
    if violation is None or closed is None:
        raise Unavailable("the change was not closed for", where="bench violation")
    seen, shut = float(violation["at"]), float(closed["at"])
    # 2. What traffic says of it.
    await _until_refused(scene, act)
    ledger = scene.ledger
    refused, kept, cut = (ledger.refused_after(flows, act) or float("nan") for flows in (NEW, KEPT, HELD))
    last = ledger.last_served(NEW, act)
    # 3. The repair.
    repair = now()
    page.write_bytes(original)
    fresh = await web.watch.until(Event.PHASE, repair, within=WITHIN_SECONDS, matching=in_phase(Phase.FRESH))
    ledger.closures.append(Closure(shut, float(fresh["at"]) if fresh else now()))
    recovered = await _settle(scene, repair)
    observed = (seen - act) * 1000
    return Sample(
        observed=observed,
        refused_from_act=refused,
        last_served=max(0.0, last - observed),
        refused=max(0.0, refused - observed),
        kept_refused=max(0.0, kept - observed),
        cut=max(0.0, cut - observed),
        closed=(shut - seen) * 1000,
        recovered=recovered,
        steps={name: (float(moment) - seen) * 1000 for name, moment in closed["steps"].items()},
    )


async def _until_refused(scene: Scene, act: float) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while any(scene.ledger.refused_after(flows, act) is None for flows in (NEW, KEPT, HELD)):
            await scene.news()


async def _settle(scene: Scene, since: float) -> float:
    """Waits until traffic is served again, and the held streams have had time to come back."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while (recovered := scene.ledger.recovered_after((*NEW, *KEPT), since)) is None:
            await scene.news()
    await asyncio.sleep(0.4)
    return recovered
