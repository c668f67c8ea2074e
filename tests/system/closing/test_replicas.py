"""Three instances of one identity, each with its own sidecar and Envoy: one is closed, and the two others serve."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from proofbeat import admin
from proofbeat.demo import layout as layouts
from proofbeat.demo.layout import IN_HTTP, OUT_HTTP, Layout, Side, Terms
from proofbeat.demo.scene import Standing
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Watch
from sidecar.states import Phase
from telemetry.names import Event
from tests.system.closing.clients import ENDED, KeptAlive
from tests.system.closing.mesh import DEADMAN, WITHIN, ServiceScene

SEVERAL = 12
"""Calls in which each of three is met, whatever else is called: Envoy takes them in turn."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: open connections are ended by SOCK_DESTROY")


@dataclass
class Replicas:
    """caller: the side that calls them. instances: of one identity."""

    scene: ServiceScene
    caller: Side
    instances: tuple[Standing, ...]

    async def answers(self) -> set[str]:
        """Who answers several calls; nothing for a call that nobody does."""
        return {await self._answer() for _ in range(SEVERAL)}

    async def until_answered_by(self, wanted: tuple[Standing, ...]) -> None:
        async with asyncio.timeout(2 * WITHIN):
            while await self.answers() != {each.side.address for each in wanted}:
                pass

    async def _answer(self) -> str:
        try:
            asking = await KeptAlive.open(self.caller.address, OUT_HTTP)
        except ENDED:
            return ""
        try:
            return (await asking.got("/name")).decode()
        except ENDED:
            return ""
        finally:
            asking.close()


@asynccontextmanager
async def replicas() -> AsyncIterator[Replicas]:
    """Three instances of web, and db, which calls them. Leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="proofbeat-replicas-"))
    layout = Layout.make(folder, Terms(interval=0.5, deadman=DEADMAN, pages=4, scraped=False, delivery="xds"))
    try:
        async with asyncio.TaskGroup() as tasks:
            scene = ServiceScene(layout, tasks)
            try:
                await scene.set_up()
                further = [_further(layout, number) for number in (1, 2)]
                for standing in further:
                    await scene.start_workload(standing)
                instances = (scene.web, *further)
                for standing in instances:
                    await scene.start_envoy(standing)
                    await scene.start_sidecar(standing, enrol=True)
                await _start_caller(scene, tuple(each.side.address for each in instances))
                yield Replicas(scene, layout.db, instances)
            finally:
                await scene.end()
    finally:
        shutil.rmtree(folder)


def _further(layout: Layout, number: int) -> Standing:
    """One more instance of web, of the same files, for these are what its policy names."""
    web = layout.web
    network, _, host = web.address.rpartition(".")
    side = Side(web.name, f"{network}.{int(host) + 10 * number}", web.folder.with_name(f"web-{number}"), web.spiffe_id)
    side.folder.mkdir()
    side.app.symlink_to(web.app)
    return Standing(side, Watch())


async def _start_caller(scene: ServiceScene, addresses: tuple[str, ...]) -> None:
    """Db, whose upstreams lead to all of these."""
    standing, layout = scene.db, scene.layout
    assert standing.workload is not None
    token = await admin.create_token(layout.authority_admin, standing.side.name)
    layouts.write_sidecar(layout, standing.side, standing.workload.pid, token)
    settings = yaml.safe_load(standing.side.config.read_text())
    for upstream in settings["delivery"]["service"]["upstreams"]:
        if upstream["peers"] == [f"{layout.web.address}:{IN_HTTP}"]:
            upstream["peers"] = [f"{address}:{IN_HTTP}" for address in addresses]
    standing.side.config.write_text(yaml.safe_dump(settings))
    await scene.start_envoy(standing)
    await scene.start_sidecar(standing, enrol=False)


def test_of_three_instances_the_one_that_is_closed_answers_nobody_and_the_others_go_on() -> None:
    async def story(at: Replicas) -> None:
        await at.until_answered_by(at.instances)
        broken, *others = at.instances
        foreign = at.scene.layout.folder / "payload"
        shutil.copy(shutil.which("sleep") or "/bin/sleep", foreign)
        act = now()
        at.scene.attack(broken, f"{foreign} 1")
        assert await broken.watch.until(Event.CLOSED, act, within=WITHIN) is not None
        assert broken.side.address not in await at.answers()
        # Its peers are told, and do not even try it any more.
        await at.until_answered_by(tuple(others))
        for _ in range(3):
            assert await at.answers() == {each.side.address for each in others}
        assert [each.watch.phase for each in others] == [Phase.FRESH, Phase.FRESH]
        assert all(each.watch.first(Event.VIOLATION, act) is None for each in others)

    async def whole() -> None:
        async with replicas() as at:
            await story(at)

    asyncio.run(whole())
