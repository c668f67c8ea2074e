"""What a real Envoy makes of openings that change, of lives that end, and of closings that drain or are rejected."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar import clock
from sidecar.delivery import poison
from sidecar.delivery.poison import Poison
from sidecar.delivery.told import Happening
from tests.system.closing.clients import ENDED, Http2, KeptAlive, Tcp
from tests.system.delivery.served import DEADMAN, Served, ended, identity, lease, served
from tests.system.xds.rig import LOCALHOST, PATIENCE

Story = Callable[[Served], Awaitable[None]]


def told(
    folder: Path, story: Story, *, poisoned: Callable[[float], Poison] = poison.make, silent: bool = False
) -> None:
    async def scenario() -> None:
        async with served(folder, poisoned=poisoned, silent=silent) as made:
            await story(made)

    asyncio.run(scenario())


async def open_for(made: Served, seconds: float) -> None:
    made.delivery.serve(identity(), lease(seconds))
    await made.until(Happening.OPENED)


async def refused(made: Served) -> None:
    """Whoever comes new is, once Envoy's workers have taken it up."""
    async with asyncio.timeout(PATIENCE):
        for kind, port in ((Tcp, made.tcp), (KeptAlive, made.http)):
            while await answered(kind, port):  # noqa: ASYNC110 - as above: Envoy has no event for it
                await asyncio.sleep(0.01)


async def answered(kind: type[Tcp] | type[KeptAlive], port: int) -> bool:
    try:
        client = await kind.open(LOCALHOST, port)
        await client.ask()
    except ENDED:
        return False
    client.close()
    return True


def test_no_benign_change_drops_a_connection(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        await open_for(made, 600)
        everything = await made.held()
        for change in (
            made.delivery.heartbeat,
            lambda: made.delivery.serve(identity(), lease(600)),
            lambda: made.retime(DEADMAN / 2),
            made.delivery.heartbeat,
            lambda: made.delivery.serve(identity(), lease(2)),
            made.delivery.heartbeat,
            lambda: made.delivery.serve(identity(), lease(600)),
            lambda: made.retime(DEADMAN * 2),
            made.delivery.heartbeat,
        ):
            change()
            # Nothing tells when the workers have taken it up; what would drop a connection does so in milliseconds.
            for _ in range(20):
                await asyncio.sleep(0.01)
                for each in everything:
                    await each.ask()
        assert not [each for each in made.told if each.happening is Happening.REJECTED]

    told(tmp_path, story)


def test_what_is_open_outlives_no_lease_though_nobody_closes_and_the_dead_man_time_is_longer(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        made.retime(60.0)
        await open_for(made, 600)
        everything = await made.held()
        last = lease(1.0)
        made.delivery.serve(identity(), last)
        for each in everything:
            assert await ended(each, PATIENCE)
        assert abs(clock.now().boot - last.boot_end) < 1.0
        await refused(made)

    told(tmp_path, story)


def test_heartbeats_prolong_a_life_up_to_the_end_of_the_lease_and_no_further(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        made.retime(1.0)
        await open_for(made, 600)
        client = await made.opened(Tcp, made.tcp)
        last = lease(2.5)
        made.delivery.serve(identity(), last)
        while clock.now().boot < last.boot_end + 1.0:
            made.delivery.heartbeat()
            await asyncio.sleep(0.1)
            if clock.now().boot < last.boot_end - 0.3:
                await client.ask()
        assert await ended(client, 0.1)
        await refused(made)

    told(tmp_path, story)


def test_what_drains_ends_by_itself_or_is_cut_in_the_end_and_nothing_new_begins_meanwhile(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        await open_for(made, 600)
        tcp, http, streams = await made.held()
        began = time.monotonic()
        made.delivery.drain("file-modified", 1.5)
        await made.until(Happening.DRAINING)
        await refused(made)
        with pytest.raises(ENDED):
            await http.ask()
        assert made.delivery.draining
        while time.monotonic() < began + 1.2:
            made.delivery.heartbeat()
            await tcp.ask()
            await streams.ask()
            await asyncio.sleep(0.02)
        for each in (tcp, streams):
            assert await ended(each, 3.0)
        closed = await made.until(Happening.CLOSED)
        assert closed.detail == "verified"
        assert time.monotonic() - began > 1.5

    told(tmp_path, story)


def test_a_repair_while_it_drains_spares_what_was_open(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        await open_for(made, 600)
        tcp = await made.opened(Tcp, made.tcp)
        streams = await made.opened(Http2, made.http)
        made.delivery.drain("file-modified", 2.0)
        await tcp.ask()
        await open_for(made, 600)
        assert not made.delivery.draining
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            await tcp.ask()
            await streams.ask()
            await asyncio.sleep(0.05)
        await (await made.opened(KeptAlive, made.http)).ask()

    told(tmp_path, story)


def test_a_lease_that_ends_earlier_ends_the_draining(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        await open_for(made, 600)
        tcp = await made.opened(Tcp, made.tcp)
        made.delivery.serve(identity(), lease(0.5))
        made.delivery.drain("file-modified", 60.0)
        assert await ended(tcp, 3.0)
        await made.until(Happening.CLOSED)

    told(tmp_path, story)


def mismatched(now: float) -> Poison:
    """A poison that Envoy cannot use: somebody else's key."""
    return replace(poison.make(now), key=poison.make(now).key)


def test_an_envoy_that_rejects_the_poison_is_asked_to_quit(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        await open_for(made, 600)
        everything = await made.held()
        made.delivery.close("file-modified")
        escalated = await made.until(Happening.ESCALATED)
        assert escalated.detail.startswith("rejected: ")
        closed = await made.until(Happening.CLOSED)
        # A starved one has no time to quit in.
        assert (closed.detail, await made.envoy.wait()) in (("Envoy quit", 0), ("Envoy was killed", -signal.SIGKILL))
        assert "quit" in closed.steps
        for each in everything:
            assert await ended(each, 1.0)

    told(tmp_path, story, poisoned=mismatched, silent=True)
