"""`bench telemetry`: what a round costs with nothing exported, with Prometheus scraping, and with OTLP.

One sidecar, started anew for each stretch, with the three ways taking turns: whatever else the machine does meets all
of them. CPU time a round is the figure that noise moves least.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from attestation.errors import Unavailable
from proofbeat.bench import mesh
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.demo.layout import Terms
from proofbeat.demo.scene import Scene, Standing
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import in_phase
from sidecar.states import Phase
from telemetry import exposition, metrics, otlp
from telemetry.names import Event
from telemetry.recorder import MOST_TRACES, Recorder, RoundRecord, Spans, of_round

EVERY = 0.05
"""Seconds between two rounds: far more often than any policy asks, to have many samples."""
SCRAPED_EVERY = 1.0
"""Seconds; Prometheus's default is sixty."""
WARM_UP = 1.0
WAYS = ("off", "prometheus", "otlp")
MOST_SHARE = 3.0


async def run(*, quick: bool) -> Report:
    turns, seconds = (3, 1.5) if quick else (8, 5.0)
    totals: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    async with _collector() as endpoint, mesh.scene(Terms(interval=EVERY, freshness=8.0, scraped=False)) as scene:
        await scene.start_envoy(scene.web)
        await _started(scene, enrol=True)
        for turn in range(turns):
            for way in (*WAYS[turn % 3 :], *WAYS[: turn % 3]):
                found, spent = await _stretch(scene, way, endpoint, seconds)
                totals[way] += found
                cpu[way].append(spent)
    figures: dict[str, Figure] = {f"round_{way}": Distribution.of(totals[way]) for way in WAYS}
    figures |= {f"cpu_a_round_{way}": Value("ms", round(statistics.median(cpu[way]), 3)) for way in WAYS}
    figures |= _alone()
    return Report("telemetry", figures, tuple(_budgets(totals, cpu)))


def _budgets(totals: dict[str, list[float]], cpu: dict[str, list[float]]) -> list[Budget]:
    base = statistics.median(totals["off"])
    found = []
    for way in WAYS[1:]:
        more = (statistics.median(totals[way]) - base) / base * 100
        found.append(Budget(f"{way}: longer round, p50 in % of one without", MOST_SHARE, round(more, 2)))
        without = statistics.median(cpu["off"])
        spent = (statistics.median(cpu[way]) - without) / without * 100
        found.append(Budget(f"{way}: more CPU time a round, in % of one without", MOST_SHARE, round(spent, 2)))
    return found


def _alone() -> dict[str, Figure]:
    """What each part costs by itself, in one process: what noise between stretches hides."""
    made, record = Recorder(metrics.SIDECAR), RoundRecord(1.0, False, 1.1, 1.2, 1.3, 1.4, 1.5, b"n" * 32)
    made.subject = {"workload": "web", "namespace": "unknown", "trust_domain": "example.org"}
    made.traces = deque(maxlen=MOST_TRACES)

    def recorded() -> None:
        made.count(metrics.ROUNDS, "affirming")
        made.observe_stages(record.began, record.marks())
        made.traced(lambda: _trace(record))

    return {
        "recording_a_round": _timed(recorded),
        "rendering_a_scrape": _timed(lambda: exposition.render(made)),
        "encoding_a_trace": _timed(lambda: otlp.traces_request(made, [_trace(record)], boot_ns=0)),
        "encoding_all_metrics": _timed(lambda: otlp.metrics_request(made, began_ns=0, now_ns=1)),
    }


def _trace(record: RoundRecord) -> Spans:
    return of_round(record, {"instance": "i-0", "sequence": 1, "full": False, "tier": "affirming"})


def _timed(act: Callable[[], object]) -> Distribution:
    samples = []
    for _ in range(1000):
        began = time.perf_counter()
        act()
        samples.append((time.perf_counter() - began) * 1e6)
    return Distribution.of(samples, "us")


async def _stretch(scene: Scene, way: str, endpoint: str, seconds: float) -> tuple[list[float], float]:
    """Milliseconds of each round, and of CPU that the sidecar spent on one."""
    settings = {"prometheus": {"listen": f"unix:{scene.layout.web.metrics}"}, "otlp": {"otlp": _otlp(endpoint)}}
    _configure(scene.layout.web.config, settings.get(way, {}))
    await _stopped(scene.web)
    await _started(scene, enrol=False)
    await asyncio.sleep(WARM_UP)
    pid = _pid(scene.web)
    began, spent = now(), _cpu_ms(pid)
    if way == "prometheus":
        await _scrape(scene.layout.web.metrics, seconds)
    else:
        await asyncio.sleep(seconds)
    spent = _cpu_ms(pid) - spent
    lines = [
        float(line["total_ms"])
        for line in scene.web.watch.lines
        if line.get("event") == Event.ROUND and line["heard"] >= began and not line["full"]
    ]
    if not lines:
        raise Unavailable(f"no round in {seconds:g} s", where=f"bench telemetry, {way}")
    return lines, spent / len(lines)


def _otlp(url: str) -> dict[str, str]:
    return {"endpoint": url, "interval": "1s"}


def _configure(file: Path, telemetry: object) -> None:
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "telemetry": telemetry}, sort_keys=False))


async def _started(scene: Scene, *, enrol: bool) -> None:
    began = now()
    await scene.start_sidecar(scene.web, enrol=enrol)
    watch = scene.web.watch
    if await watch.until(Event.PHASE, began, within=mesh.OPEN_SECONDS, matching=in_phase(Phase.FRESH)) is None:
        raise Unavailable("the sidecar did not become fresh", where="bench telemetry")


async def _stopped(standing: Standing) -> None:
    if standing.sidecar is not None:
        await standing.sidecar.end()


def _pid(standing: Standing) -> int:
    if standing.sidecar is None:
        raise Unavailable("the sidecar does not run", where="bench telemetry")
    return standing.sidecar.pid


async def _scrape(socket: Path, seconds: float) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as http:
        for _ in range(round(seconds / SCRAPED_EVERY)):
            async with http.get("http://sidecar/metrics") as answer:
                await answer.read()
            await asyncio.sleep(SCRAPED_EVERY)


def _cpu_ms(pid: int) -> float:
    """User and system time of one process, from /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _collector() -> AsyncIterator[str]:
    """An OTLP receiver that takes everything and keeps nothing."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    application = web.Application()
    application.add_routes([web.post("/v1/{what}", take)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
