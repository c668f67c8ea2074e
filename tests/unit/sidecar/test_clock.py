"""Lease ends by the kernel's timers."""

from __future__ import annotations

import asyncio

import pytest

from sidecar import clock
from sidecar.clock import LeaseTimer
from sidecar.states import Lease


@pytest.mark.parametrize("ends", ["boot", "wall"])
def test_the_timer_wakes_at_the_earlier_of_the_leases_two_ends(ends: str) -> None:
    async def armed() -> float:
        loop, woke = asyncio.get_running_loop(), asyncio.Event()
        timer = LeaseTimer(on_end=woke.set, on_set=lambda: None)
        timer.start(loop)
        began = clock.now()
        soon, late = 0.05, 60.0
        boot, wall = (soon, late) if ends == "boot" else (late, soon)
        timer.arm(Lease(1, began.boot + boot, began.wall + wall))
        async with asyncio.timeout(5):
            await woke.wait()
        timer.close(loop)
        return clock.now().boot - began.boot

    assert asyncio.run(armed()) >= 0.05


def test_an_end_in_the_past_wakes_at_once() -> None:
    async def armed() -> None:
        loop, woke = asyncio.get_running_loop(), asyncio.Event()
        timer = LeaseTimer(on_end=woke.set, on_set=lambda: None)
        timer.start(loop)
        timer.arm(Lease(1, -5.0, 1e12))
        async with asyncio.timeout(5):
            await woke.wait()
        timer.close(loop)

    asyncio.run(armed())
