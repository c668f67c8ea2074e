"""Traffic of every kind really stops, through two real Envoys, whatever closes and whoever is gone while it does.

Into the closed side and out of it, TCP, HTTP/1, HTTP/2 streams, uploads and WebSockets are open and go on; nothing that
begins after the report is served, and nothing that was open outlives it. In both modes of delivery.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from proofbeat.demo.layout import IN_TCP, OUT_TCP
from proofbeat.ephemeral.clock import now
from sidecar.states import Phase
from telemetry.names import Event
from tests.system.alive import Alive
from tests.system.closing.clients import ENDED, KeptAlive, Silent, Tcp
from tests.system.closing.holding import Rush, Way, all_end
from tests.system.closing.mesh import DEADMAN, WITHIN, Mesh, mesh
from tests.system.measurer.volume import Volume
from tests.system.xds.rig import stats

GRACE = 1.0
"""Seconds beyond the dead-man time: what is still served then was not closed. The benchmarks hold the real figure."""
MANY, A_MOMENT = 20, 0.05
"""Connections, and seconds: shorter than Envoy is given to acknowledge a closing."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: open connections are ended by SOCK_DESTROY")


@pytest.fixture(scope="module", params=["sds", "xds"])
def at(request: pytest.FixtureRequest) -> Iterator[Alive[Mesh]]:
    mode: Literal["sds", "xds"] = request.param
    made = Alive(mesh(mode))
    yield made
    made.end()


def test_all_that_is_open_ends_on_a_violation_and_nothing_is_served_after_the_report(at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        idle = [await way.open() for way in mesh.traffic.ways if way.kind is not KeptAlive]
        act = now()
        with mesh.drift():
            closed = await mesh.closed(act)
            await all_end(idle)
            await mesh.traffic.until_refused(act)
            await mesh.refused_for_a_while()
            assert await mesh.last_upload() <= closed
        await mesh.opened(closed, now())

    at.told(story)


def test_no_connection_made_while_it_closes_lives_on(at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        sides = mesh.scene.layout.sides
        rushes = [Rush(Way(Tcp, each.address, OUT_TCP, mesh.scene.layout.peer(each).name)) for each in sides]
        async with asyncio.TaskGroup() as tasks:
            rushing = [tasks.create_task(each.run()) for each in rushes]
            for rush in rushes:
                await rush.until_under_way()
            act = now()
            with mesh.drift():
                closed = await mesh.closed(act)
                for rush in rushes:
                    rush.say()
                await mesh.refused_for_a_while()
                for task in rushing:
                    task.cancel()
                for rush in rushes:
                    await rush.until_none_is_open()
            for rush in rushes:
                assert [sent - closed for sent in rush.echoed if sent >= closed] == []
        await mesh.opened(closed, now())

    at.told(story)


async def waiting(address: str) -> list[Silent]:
    """In the queue of an Envoy that stands still; a sweep may strike while one connects."""
    found = []
    for _ in range(MANY):
        with suppress(*ENDED):
            found.append(await Silent.open(address, IN_TCP))
    return found


def test_a_connection_that_said_nothing_while_it_closed_is_shown_no_identity_afterwards(at: Alive[Mesh]) -> None:
    """Envoy shakes hands under what it held when it accepted. It stands still for a moment here, so that it accepts
    after the first sweep what came before it has read the poison: only another sweep ends that."""

    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        web, envoy = mesh.scene.layout.web, mesh.web.envoy
        assert envoy is not None
        before = await Silent.open(web.address, IN_TCP)
        assert await before.offered() == (web.spiffe_id,)
        act = now()
        envoy.send_signal(signal.SIGSTOP)
        with mesh.drift():
            assert await mesh.web.watch.until(Event.VIOLATION, act, within=WITHIN) is not None
            silent = await waiting(web.address)
            await asyncio.sleep(A_MOMENT)
            silent += await waiting(web.address)
            envoy.send_signal(signal.SIGCONT)
            closed = await mesh.closed(act)
            for each in silent:
                with suppress(*ENDED):
                    assert web.spiffe_id not in await each.offered()
                each.close()
        before.close()
        await mesh.opened(closed, now())

    at.told(story)


def test_a_violation_closes_although_the_key_sockets_file_is_gone(at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        act = now()
        mesh.web.side.xds.unlink()
        with mesh.drift():
            closed = await mesh.closed(act)
            await mesh.traffic.until_refused(act)
            await mesh.refused_for_a_while()
        await mesh.opened(closed, now())

    at.told(story)


def test_an_envoy_that_is_restarted_while_closed_comes_back_closed(at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        act = now()
        with mesh.drift():
            closed = await mesh.closed(act)
            await mesh.traffic.until_refused(act)
            killed = now()
            assert mesh.web.envoy is not None
            mesh.web.envoy.send_signal(signal.SIGKILL)
            assert await mesh.web.watch.until(Event.ENVOY_ADMITTED, killed, within=WITHIN) is not None
            await mesh.refused_for_a_while()
        await mesh.opened(closed, now())

    at.told(story)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_all_that_is_open_ends_when_the_sidecar_does_not_run(number: signal.Signals, at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        idle = [await way.open() for way in mesh.traffic.ways if way.kind is not KeptAlive]
        assert mesh.web.sidecar is not None
        act = now()
        mesh.web.sidecar.send_signal(number)
        await all_end(idle)
        await mesh.traffic.until_refused(act)
        await mesh.refused_for_a_while()
        back = now()
        if number is signal.SIGSTOP:
            mesh.web.sidecar.send_signal(signal.SIGCONT)
        else:
            await mesh.scene.start_sidecar(mesh.web, enrol=False)
        await mesh.opened(act + DEADMAN + GRACE, back)

    at.told(story)


def measurer_of(sidecar: int) -> int:
    children = Path(f"/proc/{sidecar}/task/{sidecar}/children").read_text().split()
    (found,) = [int(each) for each in children if b"\0measurer\0" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return found


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_all_that_is_open_ends_when_the_measurer_does_not_run(number: signal.Signals, at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        idle = [await way.open() for way in mesh.traffic.ways if way.kind is not KeptAlive]
        assert mesh.web.sidecar is not None
        measurer = measurer_of(mesh.web.sidecar.process.pid)
        act = now()
        os.kill(measurer, number)
        await all_end(idle)
        await mesh.traffic.until_refused(act)
        await mesh.refused_for_a_while()
        back = now()
        with suppress(ProcessLookupError):
            os.kill(measurer, signal.SIGKILL)
        mesh.web.sidecar.send_signal(signal.SIGKILL)
        await mesh.scene.start_sidecar(mesh.web, enrol=False)
        await mesh.opened(act + DEADMAN + GRACE, back)

    at.told(story)


def every_day(folder: Path) -> None:
    """A token and a log are rotated, a module compiled, the heap dumped, and an editor opened."""
    own, log, page = folder / "own", folder / "own" / "log", folder / "pages" / "index.html"
    log.mkdir(parents=True)
    volume = Volume(own / "volume")
    for number in range(3):
        volume.write(token=f"token {number}")
        (log / "today").write_text("line\n" * 1000)
        (log / "today").rename(log / f"{number}")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "service.cpython-311.pyc").write_bytes(b"byte code")
    (folder / "java_pid7.hprof").write_bytes(b"heap" * 1_000_000)
    swap = page.with_name(f".{page.name}.swp")
    swap.write_bytes(b"b0VIM 9.0")
    swap.unlink()


def tidy(folder: Path) -> None:
    for each in (folder / "own", folder / "__pycache__"):
        shutil.rmtree(each)
    (folder / "java_pid7.hprof").unlink()


def test_what_happens_every_day_closes_nothing_where_policy_says_what_it_is(at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        folder = mesh.web.side.app
        classes = {
            "projected": [f"{folder}/own/volume/**"],
            "logs": [f"{folder}/own/log/**"],
            "caches": [f"{folder}/__pycache__/*"],
            "volatile": ["*.hprof", ".*.swp"],
        }
        async with mesh.classes(**classes):
            began = now()
            every_day(folder)
            await mesh.rounds()
            tidy(folder)
            await mesh.rounds()
            await mesh.traffic.until_served(began)
            assert mesh.web.watch.phase == Phase.FRESH
            against = [each for each in mesh.web.watch.since(began) if each["event"] in (Event.VIOLATION, Event.PHASE)]
            assert against == []
            assert mesh.traffic.ledger.refusals(mesh.traffic.all, began, now()) == []

    at.told(story)


def test_after_all_of_that_no_session_was_ever_resumed(at: Alive[Mesh]) -> None:
    async def story(mesh: Mesh) -> None:
        await mesh.flows()
        for side in mesh.scene.layout.sides:
            seen = await stats(side.admin, r"ssl\.(handshake|session_reused)$")
            assert sum(count for name, count in seen.items() if name.endswith("handshake")) > 0
            assert {name: count for name, count in seen.items() if name.endswith("session_reused") and count} == {}

    at.told(story)
