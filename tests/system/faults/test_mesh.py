"""Faults of a whole mesh under load, one by one: what closes, what holds, what comes back, judged by the traffic."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from proofbeat.bench.faults.inject import injected
from proofbeat.bench.faults.oracle import Finding
from proofbeat.bench.faults.plan import Fault, Kind, Moment, Target
from proofbeat.bench.faults.run import one
from proofbeat.bench.faults.stage import Stage, stage
from proofbeat.demo.layout import ALL_FLOWS, Terms
from proofbeat.ephemeral.clock import now
from telemetry.names import Event
from tests.system.alive import Alive

TERMS = Terms(interval=0.5, freshness=4.0, deadman=1.0, pages=4)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: small file systems, SOCK_DESTROY")


Story = Callable[[Stage], Coroutine[Any, Any, None]]


class Mesh(Alive[Stage]):
    """One mesh for all stories of this file."""

    def told(self, story: Story) -> None:
        """The story, begun once everything flows."""

        async def whole(made: Stage) -> None:
            await flows(made)
            await story(made)

        super().told(whole)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    running = Mesh(stage(TERMS))
    yield running
    running.end()


async def flows(made: Stage) -> None:
    began = now()
    async with asyncio.timeout(30):
        while not made.flows(began):
            await made.keep()
            await made.scene.news()


def fault(kind: Kind, target: Target, seconds: float = 0.0, *, side: str = "web", drift: bool = False) -> Fault:
    return Fault(1, kind, target, side, Moment.IDLE, seconds, drift)


def judged(finding: Finding) -> Finding:
    assert not finding.leaked
    assert finding.holds, finding
    return finding


def test_an_authority_that_is_away_costs_nobody_a_lease_until_leases_run_out_and_then_nothing_is_answered(
    mesh: Mesh,
) -> None:
    async def story(made: Stage) -> None:
        away = await one(made, fault(Kind.STOP, Target.AUTHORITY, 1.5, side=""))
        assert judged(away).outage == 0
        gone = now()
        judged(await one(made, fault(Kind.OUTLIVE, Target.AUTHORITY, TERMS.freshness + 1.5, side="")))
        # Nobody can have got a nonce after it was gone, so no lease reached this far.
        latest = gone + TERMS.freshness
        opened = min(made.story(side.name, latest).fresh[0] for side in made.layout.sides)
        answered = [each for each in made.scene.ledger.records if each.served and latest <= each.ended < opened]
        assert answered == []
        asked = [each for each in made.scene.ledger.records if latest <= each.began and each.ended < opened]
        assert {each.flow for each in asked} >= set(ALL_FLOWS) - {2, 6}
        for standing in made.scene.standings:
            closed = standing.watch.first(Event.CLOSED, gone)
            assert closed is not None
            assert closed["how"] == "closed"

    mesh.told(story)


@needs_root
def test_open_streams_do_not_outlive_the_measurer_that_would_have_cut_them(mesh: Mesh) -> None:
    async def story(made: Stage) -> None:
        judged(await one(made, fault(Kind.KILL, Target.MEASURER)))

    mesh.told(story)


@needs_root
def test_drift_is_closed_for_by_whoever_has_no_descriptor_left(mesh: Mesh) -> None:
    async def story(made: Stage) -> None:
        judged(await one(made, fault(Kind.DESCRIPTORS, Target.SIDECAR, 1.0, drift=True)))
        judged(await one(made, fault(Kind.DESCRIPTORS, Target.MEASURER, 1.0, side="db", drift=True)))

    mesh.told(story)


def test_a_closing_that_breaks_half_way_ends_the_sidecar_and_its_guardian_closes(mesh: Mesh) -> None:
    """Without a single descriptor allowed, poll(2) itself fails, in the middle of the way to Envoy."""

    async def story(made: Stage) -> None:
        web = made.scene.web
        sidecar = web.sidecar
        assert sidecar is not None
        _, most = resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE, (0, most))
        act = now()
        with made.drift("web"):
            async with asyncio.timeout(10):
                assert await sidecar.process.wait() == 1
            async with asyncio.timeout(5):
                while made.scene.ledger.refused_after(ALL_FLOWS, act) is None:
                    await made.scene.news()
        # Whether a callback or a task is the first to meet it is chance; the reason is told in either case.
        assert "Invalid argument" in (made.layout.folder / "web-sidecar.log").read_text()

    mesh.told(story)


@needs_root
def test_a_sidecar_on_a_full_disk_stays_closed_says_so_and_comes_back_by_its_ticket(mesh: Mesh) -> None:
    async def story(made: Stage) -> None:
        act, watch = now(), made.scene.web.watch
        async with injected(made, fault(Kind.DISK_FULL, Target.SIDECAR)):
            async with asyncio.timeout(30):
                while (refused := watch.first(Event.ENROLMENT_REFUSED, act)) is None:
                    await made.keep()
                    await made.scene.news()
            assert "No space left on device" in refused["why"]
            assert str(made.layout.web.state) in refused["why"]
            assert "Make room" in refused["why"]
            assert watch.first(Event.ENROLLED, act) is None
            sidecar = made.scene.web.sidecar
            assert sidecar is not None
            sidecar.send_signal(signal.SIGKILL)
            await sidecar.process.wait()
        await flows(made)
        assert watch.first(Event.ENROLLED, act) is not None
        assert made.tokens == 0

    mesh.told(story)


def test_a_key_socket_that_is_gone_disturbs_no_running_envoy_and_is_made_again_for_the_next(mesh: Mesh) -> None:
    async def story(made: Stage) -> None:
        web = made.scene.web
        last = now()
        web.side.xds.unlink()
        lost = await web.watch.until(Event.KEY_SOCKET_LOST, last, within=10)
        assert lost is not None
        assert "there is a new one" in lost["why"]
        assert made.scene.ledger.refusals(ALL_FLOWS, last, now()) == []
        envoy = web.envoy
        assert envoy is not None
        envoy.send_signal(signal.SIGKILL)
        await envoy.process.wait()
        await flows(made)

    mesh.told(story)
