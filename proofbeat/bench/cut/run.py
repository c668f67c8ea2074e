"""`bench cut`: 1, 100 and 1,000 open connections of each kind, in each mode, cut by a violation at one of their ends.

The client is beside db, the service beside web; the page that is modified is db's in one sample and web's in the next.
*own side* is the end beside the violator's Envoy, *peer side* the end beside the other one; all from the observation.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from attestation.errors import Unavailable
from proofbeat.bench import mesh
from proofbeat.bench.cut.holder import Kind, Order
from proofbeat.bench.cut.scene import HeldScene, Holding, allow_descriptors, forget, heard
from proofbeat.bench.figures import Budget, Distribution, Figure, Report
from proofbeat.demo.layout import IN_HTTP, OUT_FRESH, OUT_HTTP, OUT_TCP, Terms
from proofbeat.demo.load import Flow
from proofbeat.demo.scene import Standing
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import in_phase
from sidecar.states import Phase
from telemetry.names import Event

Mode = Literal["sds", "xds"]
MODES: tuple[Mode, ...] = ("sds", "xds")
NEW = (0, 1)
WITHIN_SECONDS = 15.0
CUT_WITHIN = 5.0
"""Seconds after which a connection counts as left open."""
FLUSHED = 0.5
"""Seconds until Envoy's access log tells of what has happened."""
BUDGETED, MOST_MS = 100, 20.0


@dataclass(frozen=True, slots=True)
class Case:
    mode: Mode
    kind: Kind
    count: int
    samples: int

    @property
    def key(self) -> str:
        return f"{self.mode}_{self.kind}_{self.count}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Milliseconds from the observation; None where that end cannot see it. left: connections that were not cut."""

    own: float | None
    peer: float | None
    last_served: float
    left: int

    @property
    def cut(self) -> float:
        """At the later of both ends; never, where one was left open."""
        seen = [each for each in (self.own, self.peer) if each is not None]
        return max(seen) if seen and not self.left else math.inf


def cases(mode: Mode, *, quick: bool) -> list[Case]:
    """Fewer samples where there are more connections: opening a thousand takes seconds."""
    if quick:
        return [Case(mode, Kind.TCP, 1, 2), *(Case(mode, kind, 100, 2) for kind in Kind)]
    samples = {1: 30, 100: 50, 1000: 6}
    return [Case(mode, kind, count, samples[count]) for kind in Kind for count in samples]


async def run(*, quick: bool) -> Report:
    allow_descriptors()
    found: list[tuple[Case, list[Sample]]] = []
    for mode in MODES:
        async with mesh.staged(Terms(interval=1.0, freshness=30.0, delivery=mode), HeldScene) as scene:
            await mesh.open_both(scene)
            db = scene.layout.db.address
            await scene.run_load(
                [
                    Flow("new HTTP connections", "http", db, OUT_FRESH, pause=0.005),
                    Flow("new TCP streams", "tcp", db, OUT_TCP, fresh=True, pause=0.005),
                ]
            )
            cutting = Cutting(scene, await scene.start_holder())
            await cutting.settled(now())
            found += [(case, await cutting.samples(case)) for case in cases(mode, quick=quick)]
    return report(found)


def report(found: Sequence[tuple[Case, Sequence[Sample]]]) -> Report:
    """Pure."""
    figures: dict[str, Figure] = {}
    for case, samples in found:
        views = {
            "cut_on_own_side": [each.own for each in samples if each.own is not None],
            "cut_on_peer_side": [each.peer for each in samples if each.peer is not None],
            "last_new_connection_served": [each.last_served for each in samples],
        }
        figures |= {f"{case.key}_{view}": Distribution.of(values) for view, values in views.items() if values}
    budgets = [_cut_in_time(case, samples) for case, samples in found if case.count == BUDGETED]
    left = sum(each.left for _, samples in found for each in samples)
    budgets.append(Budget(f"connections still open {CUT_WITHIN:g} s after the act", 0.0, float(left)))
    return Report(
        "cut",
        figures,
        tuple(budgets),
        peers={"spire": {"missing": "SPIRE is not built by this checkout; it never cuts open connections"}},
    )


def _cut_in_time(case: Case, samples: Iterable[Sample]) -> Budget:
    what = f"{case.mode}: {BUDGETED} open {case.kind} connections cut at both ends, p99 in ms after the observation"
    return Budget(what, MOST_MS, Distribution.of([each.cut for each in samples]).p99)


class Cutting:
    """Takes samples on one running mesh."""

    def __init__(self, scene: HeldScene, holding: Holding) -> None:
        self._scene = scene
        self._holding = holding

    async def samples(self, case: Case) -> list[Sample]:
        """At both sides in turn. Idle HTTP/1 connections end at each proxy, so that the client sees its own cut only by
        a violation at db."""
        scene = self._scene
        violators = (scene.db,) if case.kind is Kind.KEPT else (scene.db, scene.web)
        return [await self._sample(case, violators[number % len(violators)]) for number in range(case.samples)]

    async def _sample(self, case: Case, violator: Standing) -> Sample:
        scene = self._scene
        port = OUT_TCP if case.kind is Kind.TCP else OUT_HTTP
        await self._holding.hold(Order(case.kind, scene.layout.db.address, port, case.count))
        forget(scene.ends[scene.web.side.name])
        page = violator.side.page
        original = page.read_bytes()
        act = now()
        page.write_bytes(original + b"<!-- changed -->\n")
        try:
            return await self._judged(case, violator, act)
        finally:
            repaired = now()
            page.write_bytes(original)
            fresh = await violator.watch.until(
                Event.PHASE, repaired, within=WITHIN_SECONDS, matching=in_phase(Phase.FRESH)
            )
            if fresh is None:
                raise Unavailable(f"{violator.side.name} did not become fresh again", where="bench cut")
            await self.settled(repaired)

    async def settled(self, since: float) -> None:
        """Until new connections are served again."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while self._scene.ledger.recovered_after(NEW, since) is None:
                await self._scene.news()

    async def _judged(self, case: Case, violator: Standing, act: float) -> Sample:
        scene = self._scene
        violation = await violator.watch.until(Event.VIOLATION, act, within=WITHIN_SECONDS)
        if violation is None:
            raise Unavailable("the change was not seen", where="bench cut")
        seen = float(violation["at"])
        client, left = await self._client_saw()
        if case.kind is Kind.KEPT:
            service = await self._envoy_saw(scene.web, act)
        else:
            over = await heard(scene.ends[scene.web.side.name], CUT_WITHIN)
            service = float(over["last"]) if over else None
            left += 0 if over else case.count
        await self._refused(act)
        last_served = act + scene.ledger.last_served(NEW, act) / 1000
        own, peer = (client, service) if violator is scene.db else (service, client)
        return Sample(_after(seen, own), _after(seen, peer), max(0.0, (last_served - seen) * 1000), left)

    async def _client_saw(self) -> tuple[float | None, int]:
        """When the last connection ended there, and how many had to be dropped."""
        over = await heard(self._holding.told, CUT_WITHIN)
        if over is None:
            return None, await self._holding.drop()
        return float(over["last"]), 0

    async def _envoy_saw(self, standing: Standing, act: float) -> float | None:
        await asyncio.sleep(FLUSHED)
        lines = standing.side.access_log.read_text().splitlines()
        ended = last_connection_ended(lines, f"inbound-{IN_HTTP}", act + (time.time() - now()))
        return None if ended is None else ended - (time.time() - now())

    async def _refused(self, act: float) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while self._scene.ledger.refused_after(NEW, act) is None:
                await self._scene.news()


def last_connection_ended(lines: Iterable[str], listener: str, act: float) -> float | None:
    """The last end of a connection that was open at the act, by a listener's access log. Times: CLOCK_REALTIME seconds.

    The log writes whole milliseconds, of the start and of the duration, so the end may have been up to 2 ms later.
    """
    ends = []
    for line in lines:
        if not line.endswith("}"):  # the last line may be half written
            continue
        told = json.loads(line)
        if told["listener"] == listener and told["event"] == "connection":
            began = datetime.fromisoformat(told["start"]).timestamp()
            ended = began + float(told["duration_ms"]) / 1000
            if began < act <= ended:
                ends.append(ended)
    return max(ends, default=None)


def _after(seen: float, moment: float | None) -> float | None:
    return None if moment is None else max(0.0, (moment - seen) * 1000)
