"""Two services for every kind of traffic behind two real Envoys, with their sidecars, measurers and the authority."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from authority.api.answers import Reloaded
from policies.model.policy import AttestationPolicy
from proofbeat import admin
from proofbeat.demo.layout import APP_HTTP, Layout, Terms
from proofbeat.demo.ledger import Closure
from proofbeat.demo.scene import Scene, Standing
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import in_phase
from sidecar.states import Phase
from telemetry.names import Event
from tests.system.closing import service
from tests.system.closing.clients import uploaded
from tests.system.closing.holding import Traffic, ways

WITHIN = 15.0
DEADMAN = 1.0
SEEN_REFUSED = 5


class ServiceScene(Scene):
    """With services of our own."""

    async def start_workload(self, standing: Standing) -> None:
        shutil.copy(service.__file__, standing.side.app / "service.py")
        await super().start_workload(standing)


@dataclass
class Mesh:
    """traffic: all the time, of every kind."""

    scene: Scene
    traffic: Traffic

    @property
    def web(self) -> Standing:
        return self.scene.web

    async def flows(self) -> None:
        """Everything is served, as every story finds it."""
        await self.traffic.until_served(now())

    @contextmanager
    def drift(self) -> Iterator[None]:
        """A page of web is modified, and put back as it was."""
        page = self.web.side.page
        original = page.read_bytes()
        page.write_bytes(original + b"<!-- changed -->\n")
        try:
            yield
        finally:
            page.write_bytes(original)

    @asynccontextmanager
    async def classes(self, **patterns: Sequence[str]) -> AsyncIterator[None]:
        """Web's policy says meanwhile of what class these paths are."""
        file = self.scene.layout.policies / "web.yaml"
        before = file.read_text()
        documents = list(yaml.safe_load_all(before))
        for each in documents:
            if each["kind"] == AttestationPolicy.__name__:
                each["spec"]["files"].update(patterns)
        file.write_text(yaml.safe_dump_all(documents))
        await self._reload()
        try:
            yield
        finally:
            file.write_text(before)
            await self._reload()

    async def _reload(self) -> None:
        await admin.ask(self.scene.layout.authority_admin, "POST", "/admin/policies", Reloaded)
        await self.rounds()

    async def rounds(self) -> None:
        """Until web was attested by a round that began from now on: the first to end may have begun before."""
        for _ in range(2):
            assert await self.web.watch.until(Event.ROUND, now(), within=WITHIN) is not None

    async def closed(self, since: float) -> float:
        """When web's sidecar reported that it is closed."""
        line = await self.web.watch.until(Event.CLOSED, since, within=WITHIN)
        assert line is not None, self.web.watch.lines[-10:]
        return float(line["at"])

    async def refused_for_a_while(self) -> None:
        """Until each kind was tried several times more; that none was served is for `opened` to judge."""
        for _ in range(SEEN_REFUSED):
            await self.traffic.until_refused(now())

    async def last_upload(self) -> float:
        """When a byte of an upload last reached either service."""
        return max([await uploaded(side.address, APP_HTTP) for side in self.scene.layout.sides])

    async def opened(self, closed: float, since: float) -> None:
        """Web opens again and all is served; from its closing until then nothing was."""
        fresh = await self.web.watch.until(Event.PHASE, since, within=WITHIN, matching=in_phase(Phase.FRESH))
        assert fresh is not None, self.web.watch.lines[-10:]
        await self.traffic.until_served(since)
        self.traffic.ledger.closures.append(Closure(closed, float(fresh["at"])))
        leaked = [(self.traffic.ways[each.flow].name, each) for each, _ in self.traffic.ledger.leaked()]
        assert leaked == []


@asynccontextmanager
async def mesh(mode: Literal["sds", "xds"]) -> AsyncIterator[Mesh]:
    """All of it attested and served. Leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="proofbeat-closing-"))
    layout = Layout.make(folder, Terms(interval=0.5, deadman=DEADMAN, pages=4, scraped=False, delivery=mode))
    try:
        async with asyncio.TaskGroup() as tasks:
            scene = ServiceScene(layout, tasks)
            traffic = Traffic(ways(layout))
            try:
                await scene.set_up()
                for standing in scene.standings:
                    await scene.start_envoy(standing)
                    await scene.start_sidecar(standing, enrol=True)
                running = tasks.create_task(traffic.run())
                yield Mesh(scene, traffic)
                running.cancel()
            finally:
                await scene.end()
    finally:
        shutil.rmtree(folder)
