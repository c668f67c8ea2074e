"""Three instances of one identity, each with its own sidecar and Envoy: one is closed, and the two others serve.

One is tampered with and nothing is wrong with the others; or the same drift is on all, and policy holds the others.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from attestation.trust import Tier
from authority.api.answers import Reloaded
from policies.model.policy import AttestationPolicy
from proofbeat import admin
from proofbeat.demo import layout as layouts
from proofbeat.demo.layout import IN_HTTP, OUT_HTTP, Layout, Side, Terms
from proofbeat.demo.scene import Standing
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Line, Watch
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

    async def until_served_by(self, *wanted: Standing) -> None:
        """The same, where whoever is closed is called as well, for it may be open again any moment."""
        async with asyncio.timeout(2 * WITHIN):
            while await self.answers() - {""} != {each.side.address for each in wanted}:
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
async def replicas(**spec: str) -> AsyncIterator[Replicas]:
    """Three instances of web, and db, which calls them. spec: what web's policy says besides. Leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="proofbeat-replicas-"))
    layout = Layout.make(folder, Terms(interval=0.5, deadman=DEADMAN, pages=4, scraped=False, delivery="xds"))
    try:
        async with asyncio.TaskGroup() as tasks:
            scene = ServiceScene(layout, tasks)
            try:
                await scene.set_up()
                await _ruled(layout, spec)
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


async def _ruled(layout: Layout, spec: Mapping[str, str]) -> None:
    file = layout.policies / f"{layout.web.name}.yaml"
    documents = list(yaml.safe_load_all(file.read_text()))
    for each in documents:
        if each["kind"] == AttestationPolicy.__name__:
            each["spec"].update(spec)
    file.write_text(yaml.safe_dump_all(documents))
    await admin.ask(layout.authority_admin, "POST", "/admin/policies", Reloaded)


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
        foreign, act = _payload(at), now()
        at.scene.attack(broken, f"{foreign} 1")
        assert await broken.watch.until(Event.CLOSED, act, within=WITHIN) is not None
        assert broken.side.address not in await at.answers()
        # Its peers are told, and do not even try it any more.
        await at.until_answered_by(tuple(others))
        for _ in range(3):
            assert await at.answers() == {each.side.address for each in others}
        assert [each.watch.phase for each in others] == [Phase.FRESH, Phase.FRESH]
        assert all(each.watch.first(Event.VIOLATION, act) is None for each in others)

    played(story)


def test_one_drift_on_all_closes_the_share_and_whoever_is_held_closes_for_a_tamper_or_once_there_is_room() -> None:
    async def story(at: Replicas) -> None:
        await at.until_answered_by(at.instances)
        page = at.scene.layout.web.page
        original, act = page.read_bytes(), now()
        page.write_bytes(original + b"<!-- on all of them -->\n")
        # Of three, half is one: it closes, and the two others say that they are held.
        closed, first, second = await _told_apart(at.instances, act)
        await at.until_served_by(first, second)
        assert closed.watch.first(Event.HELD, act) is None
        assert [each.watch.first(Event.CLOSED, act) for each in (first, second)] == [None, None]
        said = at.scene.authority_watch.first(Event.HELD, act)
        assert said is not None and said["registration"] == "web"
        # Rounds go on, and what they bring is marked and keeps open.
        for each in (first, second):
            assert await each.watch.until(Event.ROUND, now(), within=WITHIN, matching=_warning) is not None
        assert await at.answers() - {""} == {first.side.address, second.side.address}
        # The closed one leaves: there is room for another one to close.
        left = now()
        assert closed.sidecar is not None
        await closed.sidecar.end()
        other, last, *_ = await _first_to(Event.CLOSED, (first, second), left)
        await at.until_served_by(last)
        assert last.watch.first(Event.CLOSED, act) is None
        # A tamper is never held.
        tampered = now()
        at.scene.attack(last, f"{_payload(at)} 1")
        assert await last.watch.until(Event.CLOSED, tampered, within=WITHIN) is not None
        await at.until_served_by()
        # Whoever drifted opens again once that is repaired.
        page.write_bytes(original)
        await at.until_served_by(other)

    played(story, maxUnavailable="50%", escalateAfter="5s")


def test_with_no_authority_to_ask_one_drift_on_all_closes_them_all() -> None:
    async def story(at: Replicas) -> None:
        await at.until_answered_by(at.instances)
        await at.scene.stop_authority()
        page, act = at.scene.layout.web.page, now()
        page.write_bytes(page.read_bytes() + b"<!-- on all of them -->\n")
        for each in at.instances:
            assert await each.watch.until(Event.CLOSED, act, within=WITHIN) is not None
            assert each.watch.first(Event.HELD, act) is None

    played(story, maxUnavailable="50%")


def _payload(at: Replicas) -> Path:
    foreign = at.scene.layout.folder / "payload"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", foreign)
    return foreign


def _warning(line: Line) -> bool:
    return bool(line["tier"] == Tier.WARNING.label)


async def _told_apart(instances: tuple[Standing, ...], since: float) -> tuple[Standing, ...]:
    """The one that closed, and those that are held."""
    closed, *held = await _first_to(Event.CLOSED, instances, since)
    for each in held:
        assert await each.watch.until(Event.HELD, since, within=WITHIN) is not None
    return closed, *held


async def _first_to(event: Event, among: tuple[Standing, ...], since: float) -> tuple[Standing, ...]:
    """The first of them to say so, and then the others."""
    async with asyncio.TaskGroup() as tasks:
        waiting = {tasks.create_task(each.watch.until(event, since, within=WITHIN)): each for each in among}
        done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in others:
            each.cancel()
    (said,) = done
    assert said.result() is not None
    return waiting[said], *(each for each in among if each is not waiting[said])


def played(story: Callable[[Replicas], Awaitable[None]], **spec: str) -> None:
    async def whole() -> None:
        async with replicas(**spec) as at:
            await story(at)

    asyncio.run(whole())
