"""`bench round`: one round with evidence over loopback TLS, stage by stage, from a real sidecar's own record."""

from __future__ import annotations

import asyncio

from proofbeat.bench import mesh
from proofbeat.bench.figures import Budget, Distribution, Report, Value
from proofbeat.demo.layout import Terms
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Line
from telemetry.metrics import ATTESTING
from telemetry.names import Event

EVERY = 0.05
"""Seconds between two rounds: far more often than any policy asks, to have many samples; none overlaps another."""


async def run(*, quick: bool) -> Report:
    seconds = 10.0 if quick else 45.0
    async with mesh.scene(Terms(interval=EVERY, freshness=8.0)) as scene:
        await mesh.open_both(scene)
        await asyncio.sleep(1.0)
        began = now()
        await asyncio.sleep(seconds)
        lines = [
            line
            for standing in scene.standings
            for line in standing.watch.lines
            if line.get("event") == Event.ROUND and line["heard"] >= began and not line["full"]
        ]
    exchange = Distribution.of([_answer(line) for line in lines])
    return Report(
        "round",
        {
            "round_to_answer": exchange,
            "total": Distribution.of([float(line["total_ms"]) for line in lines]),
            **{stage: Distribution.of(_spent(lines, stage)) for stage in ATTESTING},
            "rounds_per_second": Value("1/s", round(len(lines) / seconds, 1)),
        },
        (Budget("round with evidence, loopback, signing to the answer, p50 in ms", 2.5, exchange.p50),),
        peers={"spire-renewal": {"missing": "SPIRE is not built by this checkout"}},
    )


def _spent(lines: list[Line], stage: str) -> list[float]:
    return [float(line[f"{stage}_ms"]) for line in lines if f"{stage}_ms" in line]


def _answer(line: Line) -> float:
    """Signing the evidence, and the exchange with the authority: appraisal, durable commit, leaf and result."""
    return float(line["signed_ms"]) + float(line["answered_ms"])
