"""`bench start`: from spawning the sidecar to its first certificate in Envoy with 1,000 files, and what it costs."""

from __future__ import annotations

import asyncio

from attestation.errors import Unavailable
from proofbeat.bench import mesh
from proofbeat.bench.costs import Cost, Reading, pss
from proofbeat.bench.figures import Budget, Distribution, Report, Value
from proofbeat.demo.layout import Terms
from proofbeat.demo.scene import Scene, Standing
from proofbeat.ephemeral.clock import now
from telemetry.names import Event

FILES = 1000
WITHIN_SECONDS = 30.0


async def run(*, quick: bool) -> Report:
    repeats, idle_seconds = (5, 5.0) if quick else (30, 30.0)
    # The baseline preset's own rhythm for what idling costs: 30 s rounds would hide in a short run, 10 s do not.
    async with mesh.scene(Terms(interval=10.0, freshness=60.0, deadman=3.0, pages=FILES - 2)) as scene:
        await mesh.open_both(scene)
        starts = [await _restart(scene, scene.web) for _ in range(repeats)]
        sidecar, measurer = processes(scene.web)
        await asyncio.sleep(2.0)
        before = Reading.of((sidecar, measurer))
        await asyncio.sleep(idle_seconds)
        idle = Cost.between(before, Reading.of((sidecar, measurer))).cpu
        memory = {"sidecar_pss": pss((sidecar,)), "measurer_pss": pss((measurer,))}
    first = Distribution.of(starts)
    return Report(
        "start",
        {
            "start_to_first_certificate": first,
            "idle_cpu": Value("% of a core", round(idle, 2)),
            **{name: Value("MB", round(value, 1)) for name, value in memory.items()},
        },
        (
            Budget(f"start to first certificate in Envoy with {FILES} files, p50 in ms", 700.0, first.p50),
            Budget("sidecar PSS in MB", 64.0, memory["sidecar_pss"]),
            Budget("measurer PSS in MB", 24.0, memory["measurer_pss"]),
            Budget("idle CPU of both in % of a core", 0.5, idle),
        ),
        peers={"spire-agent": {"missing": "SPIRE is not built by this checkout"}},
    )


async def _restart(scene: Scene, standing: Standing) -> float:
    """Milliseconds from the spawn to Envoy's acknowledgement of an identity that lets requests pass."""
    sidecar = standing.sidecar
    if sidecar is not None:
        await sidecar.end()
    await _envoy_back(standing)
    began = now()
    await scene.start_sidecar(standing, enrol=False)
    opened = await standing.watch.until(Event.OPENED, began, within=WITHIN_SECONDS)
    if opened is None:
        raise Unavailable("the sidecar did not open", where="bench start")
    return (float(opened["at"]) - began) * 1000


async def _envoy_back(standing: Standing) -> None:
    """A sidecar's end takes its Envoy along; the next start is measured with Envoy up, as a restart finds it."""
    async with asyncio.timeout(WITHIN_SECONDS):
        # Another program's socket file: nothing of it can be awaited.
        while not standing.side.admin.exists() or standing.envoy is None or not standing.envoy.running:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


def processes(standing: Standing) -> tuple[int, int]:
    """Pids of its sidecar and of that one's measurer."""
    started = next(line for line in reversed(standing.watch.lines) if line.get("event") == Event.STARTED)
    return int(started["pid"]), int(started["measurer"])
