"""`bench idle`: what a sidecar and its measurer cost while nothing happens: an hour's rounds, done in a minute.

What does not depend on rounds (heartbeats, looking for drift, process events of the host) is taken by itself, for as
long as it takes; what a round costs, from two a second. An hour is the first for its length, and as many rounds as the
default interval gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from proofbeat.bench import bystanders, mesh
from proofbeat.bench.costs import Cost, Reading, pss
from proofbeat.bench.figures import Budget, Figure, Report, Value
from proofbeat.bench.node.run import STARTS_A_SECOND
from proofbeat.bench.start import FILES, processes
from proofbeat.demo.layout import Terms
from telemetry.names import Event

HOUR, INTERVAL = 3600.0, 30.0
"""Seconds; the interval is policy's default."""
BETWEEN_ROUNDS, AT_ROUNDS = 120.0, 0.5
NAMES = ("sidecar", "measurer")


async def run(*, quick: bool) -> Report:
    seconds = 4.0 if quick else 40.0
    async with mesh.scene(Terms(interval=BETWEEN_ROUNDS, freshness=600.0, deadman=5.0, pages=FILES - 2)) as scene:
        await mesh.open_both(scene)
        pids = processes(scene.web)
        await asyncio.sleep(3.0)
        quiet = await _costs(pids, seconds)
        with bystanders.starting(STARTS_A_SECOND):
            busy = await _costs(pids, seconds)
        memory = [pss((pid,)) for pid in pids]
    async with mesh.scene(Terms(interval=AT_ROUNDS, freshness=60.0, deadman=5.0, pages=FILES - 2)) as scene:
        await mesh.open_both(scene)
        pids = processes(scene.web)
        await asyncio.sleep(3.0)
        begun = _rounds(scene.web.watch.lines)
        rushed = await _costs(pids, seconds)
        rounds = _rounds(scene.web.watch.lines) - begun
    figures: dict[str, Figure] = {}
    hour: list[float] = []
    for name, still, beside, often, held in zip(NAMES, quiet, busy, rushed, memory, strict=True):
        a_round = (often.cpu - still.cpu) / 100 * seconds / max(1, rounds)
        hour.append(still.cpu + a_round * (HOUR / INTERVAL) / HOUR * 100)
        figures |= {
            f"{name}_between_rounds_cpu": Value("% of a core", round(still.cpu, 3)),
            f"{name}_between_rounds_wakes": Value("a second", round(still.wakes, 1)),
            f"{name}_beside_programs_cpu": Value("% of a core", round(beside.cpu, 3)),
            f"{name}_beside_programs_wakes": Value("a second", round(beside.wakes, 1)),
            f"{name}_a_round": Value("ms of CPU", round(a_round * 1000, 2)),
            f"{name}_hour_cpu": Value("% of a core", round(hour[-1], 3)),
            f"{name}_pss": Value("MB", round(held, 1)),
        }
    return Report(
        "idle",
        figures,
        (
            Budget("idle CPU of both over an hour in % of a core", 0.5, round(sum(hour), 3)),
            Budget("sidecar PSS in MB", 64.0, round(memory[0], 1)),
            Budget("measurer PSS in MB", 24.0, round(memory[1], 1)),
        ),
    )


async def _costs(pids: tuple[int, ...], seconds: float) -> list[Cost]:
    before = [Reading.of((pid,)) for pid in pids]
    await asyncio.sleep(seconds)
    return [Cost.between(each, Reading.of((pid,))) for each, pid in zip(before, pids, strict=True)]


def _rounds(lines: Sequence[Mapping[str, Any]]) -> int:
    return sum(1 for line in lines if line.get("event") == Event.ROUND)
