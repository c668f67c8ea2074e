"""`bench deadman`: a sidecar is killed or stopped: when is its traffic closed? And when is it closed for nothing?

A false trip is traffic refused although nothing was wrong but the CPU that the sidecar was given: it and its measurer
share a tenth of a CPU, idle (a round each ten seconds) and busy (always in a round).
"""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attestation.errors import Unavailable
from proofbeat.bench import cgroups, mesh
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.demo.layout import OUT_FRESH, OUT_TCP, Terms
from proofbeat.demo.ledger import Ledger
from proofbeat.demo.load import Flow, Record
from proofbeat.demo.scene import Scene, Standing
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import in_phase
from sidecar.states import Phase
from telemetry.names import Event

Mode = Literal["sds", "xds"]
MODES: tuple[Mode, ...] = ("sds", "xds")
ENDS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
SHORTEST, DEFAULT = 1.0, 5.0
DEADMANS = (DEFAULT, 3.0, SHORTEST)
"""Seconds: of policy's default, of the hardened preset, and where CPU is guaranteed."""
LOADS = {"idle": 10.0, "busy": 0.05}
"""Seconds between two rounds."""
GRACE_MS = 100.0
HELD_STREAMS = 20
NEW, HELD = (0, 1), tuple(range(2, 2 + HELD_STREAMS))
WITHIN_SECONDS = 30.0
STAYS_CLOSED = 0.3
"""Seconds that are waited for a request that is served although all were refused before."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Milliseconds from the signal: to the end of the last new connection served, to the end of the last open one."""

    new: float
    open: float


@dataclass(frozen=True, slots=True)
class Throttling:
    """One stretch with a tenth of a CPU. deadman, seconds: in seconds. waited: share of periods with no CPU left."""

    mode: Mode
    deadman: float
    load: str
    seconds: float
    trips: int
    waited: float

    def figures(self) -> dict[str, Figure]:
        key = f"{self.mode}_starved_{self.load}_deadman_{self.deadman:g}s"
        return {
            f"{key}_false_trips": Value("1/min", round(self.trips * 60 / self.seconds, 1)),
            f"{key}_out_of_cpu": Value("% of periods", round(self.waited * 100, 1)),
        }


async def run(*, quick: bool) -> Report:
    silences = {mode: await _silences(mode, 1 if quick else 20) for mode in MODES}
    if not cgroups.may_throttle():
        print("bench deadman: false trips are not measured: it takes root and cgroups of version 1", file=sys.stderr)
        return report(silences, ())
    seconds = 3.0 if quick else 60.0
    stretches = [
        await _throttling(mode, deadman, load, seconds)
        for mode in (MODES[:1] if quick else MODES)
        for deadman in ((SHORTEST,) if quick else DEADMANS)
        for load in (("busy",) if quick else LOADS)
    ]
    return report(silences, stretches)


def report(silences: dict[Mode, dict[str, list[Silence]]], stretches: Sequence[Throttling]) -> Report:
    """Pure."""
    figures: dict[str, Figure] = {}
    budgets = []
    for mode, by_end in silences.items():
        for end, samples in by_end.items():
            figures[f"{mode}_{end}_new_connections_closed"] = Distribution.of([each.new for each in samples])
            figures[f"{mode}_{end}_open_connections_closed"] = Distribution.of([each.open for each in samples])
            closed = Distribution.of([max(each.new, each.open) for each in samples])
            what = f"{mode}: sidecar {end}, new and open connections closed, p99 in ms (dead-man time {SHORTEST:g} s)"
            budgets.append(Budget(what, SHORTEST * 1000 + GRACE_MS, closed.p99))
    for stretch in stretches:
        figures |= stretch.figures()
    by_default = [each.trips for each in stretches if each.deadman == DEFAULT]
    if by_default:
        what = f"false trips with a tenth of a CPU and the default dead-man time of {DEFAULT:g} s"
        budgets.append(Budget(what, 0.0, float(sum(by_default))))
    return Report("deadman", figures, tuple(budgets))


def trips(records: Iterable[Record], flow: int, since: float, until: float) -> int:
    """How often a flow that was served was refused, in that period; refusals one after the other are one trip."""
    served, found = True, 0
    for record in records:
        if record.flow == flow and since <= record.began and record.ended <= until:
            found += served and not record.served
            served = record.served
    return found


async def _silences(mode: Mode, repeats: int) -> dict[str, list[Silence]]:
    async with mesh.scene(Terms(interval=1.0, freshness=30.0, deadman=SHORTEST, delivery=mode)) as scene:
        await mesh.open_both(scene)
        await scene.run_load(_flows(scene))
        await _settled(scene, now())
        # Turn and turn about, so that neither end has the quieter half of the run.
        turns = [{end: await _silence(scene, end) for end in ENDS} for _ in range(repeats)]
    return {end: [turn[end] for turn in turns] for end in ENDS}


def _flows(scene: Scene) -> list[Flow]:
    """From db into web, whose sidecar falls silent."""
    db = scene.layout.db.address
    return [
        Flow("new HTTP connections", "http", db, OUT_FRESH, pause=0.005),
        Flow("new TCP streams", "tcp", db, OUT_TCP, fresh=True, pause=0.005),
        *(Flow(f"held stream {number}", "hold", db, OUT_TCP, pause=0.2) for number in range(HELD_STREAMS)),
    ]


async def _silence(scene: Scene, end: str) -> Silence:
    sidecar = scene.web.sidecar
    if sidecar is None:
        raise Unavailable("the sidecar does not run", where="bench deadman")
    act = now()
    sidecar.send_signal(ENDS[end])
    await _until_refused(scene, act)
    await asyncio.sleep(STAYS_CLOSED)
    await scene.news()
    measured = _measured(scene.ledger, act)
    restored = now()
    if end == "killed":
        await scene.start_sidecar(scene.web, enrol=False)
    else:
        sidecar.send_signal(signal.SIGCONT)
    await _fresh(scene.web, restored)
    await _settled(scene, restored)
    return measured


def _measured(ledger: Ledger, act: float) -> Silence:
    return Silence(ledger.last_served(NEW, act), ledger.refused_after(HELD, act) or math.inf)


async def _until_refused(scene: Scene, act: float) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while scene.ledger.refused_after((*NEW, *HELD), act) is None:
            await scene.news()


async def _fresh(standing: Standing, since: float) -> None:
    fresh = in_phase(Phase.FRESH)
    if await standing.watch.until(Event.PHASE, since, within=WITHIN_SECONDS, matching=fresh) is None:
        raise Unavailable(f"{standing.side.name} did not become fresh again", where="bench deadman")


async def _settled(scene: Scene, since: float) -> None:
    """Until new connections are served, and the held streams have had time to come back."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while scene.ledger.recovered_after(NEW, since) is None:
            await scene.news()
    await asyncio.sleep(0.5)


async def _throttling(mode: Mode, deadman: float, load: str, seconds: float) -> Throttling:
    """Throttled once all is open: starting with a tenth of a CPU is another matter."""
    async with mesh.scene(Terms(interval=LOADS[load], freshness=60.0, deadman=deadman, delivery=mode)) as scene:
        await mesh.open_both(scene)
        await scene.run_load(_flows(scene)[: len(NEW)])
        await _settled(scene, now())
        with cgroups.throttled(_sidecar_and_measurer(scene.web)) as group:
            began = now()
            await asyncio.sleep(seconds)
            ended, waited = now(), cgroups.share_throttled(group)
        await scene.news()
        found = trips(scene.ledger.records, NEW[0], began, ended)
        return Throttling(mode, deadman, load, seconds, found, waited)


def _sidecar_and_measurer(standing: Standing) -> list[int]:
    if standing.sidecar is None:
        raise Unavailable("the sidecar does not run", where="bench deadman")
    pid = standing.sidecar.pid
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
