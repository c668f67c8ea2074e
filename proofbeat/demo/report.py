"""The demo's one JSON object."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from proofbeat.demo.closing import Act
from proofbeat.demo.scene import Scene
from telemetry.names import Event


def report(scene: Scene, acts: Sequence[Act], envoy_version: str) -> dict[str, Any]:
    """Keys are a contract; times in milliseconds."""
    totals = sorted(
        float(line["total_ms"])
        for standing in scene.standings
        for line in standing.watch.lines
        if line.get("event") == Event.ROUND
    )
    start = next((act.recovered_ms for act in acts if act.name == "identity"), None)
    return {
        "envoy_version": envoy_version,
        "policy": scene.layout.terms.floor.name if scene.layout.terms.floor else None,
        "start_to_identity_ms": start,
        "rounds": {
            "count": len(totals),
            "p50_ms": round(statistics.median(totals), 3) if totals else None,
            "p99_ms": round(totals[min(len(totals) - 1, int(len(totals) * 0.99))], 3) if totals else None,
        },
        "acts": [{**asdict(act), "recovered_ms": None if act.name == "identity" else act.recovered_ms} for act in acts],
        "requests": {
            "ok": scene.ledger.served(),
            "refused": scene.ledger.refused(),
            "leaked": len(scene.ledger.leaked()),
        },
    }
