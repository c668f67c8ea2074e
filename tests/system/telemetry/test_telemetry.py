"""Real sidecars, Envoys and a real authority, seen from outside through both exporters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from proofbeat.bench import mesh
from proofbeat.demo.layout import Terms
from proofbeat.demo.scene import Scene
from proofbeat.ephemeral.clock import now
from telemetry.names import Event
from tests.news import News

WITHIN = 30.0


@dataclass
class Scraped:
    """One exposition, as Prometheus's own parser reads it."""

    samples: dict[str, list[tuple[dict[str, str], float]]]

    def value(self, name: str, **labels: str) -> float:
        """The sum over all series that have these labels."""
        return sum(value for own, value in self.samples.get(name, []) if labels.items() <= own.items())


async def scrape(socket: Path) -> Scraped:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as http,
        http.get("http://program/metrics") as answer,
    ):
        assert answer.status == 200
        text = await answer.text()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            found.setdefault(each.name, []).append((each.labels, each.value))
    return Scraped(found)


async def until(socket: Path, holds: Callable[[Scraped], bool]) -> Scraped:
    """Texts are rendered once a second: ask until it is told."""
    async with asyncio.timeout(WITHIN):
        while not holds(found := await scrape(socket)):  # noqa: ASYNC110 - an exposition is asked for, never told
            await asyncio.sleep(0.2)
        return found


def state(name: str) -> Callable[[Scraped], bool]:
    return lambda found: found.value("proofbeat_identity_state", state=name, mode="enforce") == 1


@dataclass
class Collector:
    """An OTLP receiver that keeps what it is sent. hang: it takes requests and never answers."""

    hang: bool = False
    url: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    metrics: dict[str, set[str]] = field(default_factory=dict)
    news: News = field(default_factory=News)
    held: int = 0

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.hang:
            self.held += 1
            self.news.tell()
            try:
                await asyncio.Event().wait()
            finally:
                self.held -= 1
        assert request.content_type == "application/x-protobuf"
        if request.path == "/v1/traces":
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                program = _attributes(each.resource.attributes)["service.name"]
                self.spans += [(program, span) for scope in each.scope_spans for span in scope.spans]
        else:
            for told in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                program = _attributes(told.resource.attributes)["service.name"]
                names = {metric.name for scope in told.scope_metrics for metric in scope.metrics}
                self.metrics.setdefault(program, set()).update(names)
        self.news.tell()
        return web.Response()

    async def until(self, holds: Callable[[], bool]) -> None:
        await self.news.until(holds, WITHIN)

    def named(self, name: str) -> list[Span]:
        return [span for _, span in self.spans if span.name == name]


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {each.key: each.value.string_value for each in pairs}


@contextlib.asynccontextmanager
async def collecting(*, hang: bool = False) -> AsyncIterator[Collector]:
    made = Collector(hang=hang)
    application = web.Application()
    application.add_routes([web.post("/v1/{what}", made.take)])
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}"
    try:
        yield made
    finally:
        await runner.cleanup()


async def heard(scene: Scene, event: Event, since: float) -> None:
    assert await scene.web.watch.until(event, since, within=WITHIN) is not None, event


@pytest.mark.timeout(180)
def test_counters_move_as_the_story_is_told_and_both_exporters_tell_it() -> None:
    async def story() -> None:
        async with collecting() as collector, mesh.scene(Terms(interval=0.5, otlp=collector.url)) as scene:
            await mesh.open_both(scene)
            side, socket = scene.layout.web, scene.layout.web.metrics
            page = side.page.read_text()
            # 1. Fresh.
            fresh = await until(socket, lambda found: state("fresh")(found) and found.value(LEASE) > 0)
            assert socket.stat().st_mode & 0o777 == 0o600
            assert fresh.value("proofbeat_violations_total") == 0
            assert all(own["workload"] == "web" for own, _ in fresh.samples["proofbeat_identity_state"])
            # 2. A violation closes.
            began = now()
            side.page.write_text("changed")
            await heard(scene, Event.CLOSED, began)
            closed = await until(
                socket, lambda found: state("quarantined")(found) and found.value(CLOSED, step="verified") == 1
            )
            # A file is emptied, then written: whether that is seen as one change or as two is a matter of moments.
            assert closed.value("proofbeat_violations_total", kind="file-modified", **{"class": "drift"}) in (1, 2)
            assert closed.value(LEASE) == 0
            assert closed.value("proofbeat_xds_pushes_total") > fresh.value("proofbeat_xds_pushes_total")
            # 3. The repair opens again.
            began = now()
            side.page.write_text(page)
            await heard(scene, Event.OPENED, began)
            again = await until(socket, lambda found: state("fresh")(found) and found.value(LEASE) > 0)
            rounds = "proofbeat_rounds_total"
            assert again.value(rounds, result="contraindicated") >= 1
            assert again.value(rounds, result="affirming") > fresh.value(rounds, result="affirming")
            assert again.value("proofbeat_round_seconds_count", stage="served") >= again.value(
                rounds, result="affirming"
            )
            # 4. The authority saw the same rounds.
            seen = await until(scene.layout.authority_metrics, lambda found: found.value("proofbeat_sessions") == 2)
            assert seen.value("proofbeat_appraisals_total", tier="contraindicated") >= 1
            assert seen.value("proofbeat_issued_total") >= 3
            assert seen.value("proofbeat_appraisal_cache_total", outcome="hit") >= 1
            # 5. So did the collector, with both halves of a round in one trace.
            await collector.until(lambda: bool(collector.named("proofbeat.closing")) and bool(_joined(collector)))
            assert collector.metrics["proofbeat-sidecar"] >= {LEASE, rounds, "proofbeat_close_seconds"}
            assert "proofbeat_issued_total" in collector.metrics["proofbeat-authority"]

    asyncio.run(story())


LEASE = "proofbeat_lease_remaining_seconds"
CLOSED = "proofbeat_close_seconds_count"


def _joined(collector: Collector) -> list[Span]:
    """The authority's roots that hang below a sidecar's wait for the answer."""
    waits = {(span.trace_id, span.span_id) for span in collector.named("proofbeat.round.answered")}
    appraisals = collector.named("proofbeat.appraisal")
    return [span for span in appraisals if (span.trace_id, span.parent_span_id) in waits]


@pytest.mark.timeout(120)
def test_a_collector_that_hangs_holds_up_no_closing_and_no_round() -> None:
    async def story() -> None:
        async with collecting(hang=True) as collector, mesh.scene(Terms(interval=0.5, otlp=collector.url)) as scene:
            await mesh.open_both(scene)
            # Both sidecars and the authority wait for an answer that never comes.
            await collector.until(lambda: collector.held == 3)
            page, began = scene.layout.web.page.read_text(), now()
            scene.layout.web.page.write_text("changed")
            await heard(scene, Event.CLOSED, began)
            began = now()
            scene.layout.web.page.write_text(page)
            await heard(scene, Event.OPENED, began)
            given_up = await until(
                scene.layout.web.metrics,
                lambda found: found.value("proofbeat_telemetry_dropped_total", what="export") >= 1,
            )
            assert state("fresh")(given_up)

    asyncio.run(story())
