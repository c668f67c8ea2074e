"""Between two beats time passes as it should, or nobody vouches for what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sidecar.heartbeat import Heartbeat, Pulse, gap
from tests.news import News


def test_a_beat_that_comes_in_time_has_no_gap_before_it() -> None:
    assert gap(Pulse(100.0, 7.0), Pulse(100.4, 7.0), deadman=2.0) is None


def test_a_beat_later_than_the_dead_man_time_means_that_the_sidecar_stood_still() -> None:
    assert gap(Pulse(100.0, 7.0), Pulse(102.5, 7.0), deadman=2.0) == "the-sidecar-stood-still"


@pytest.mark.parametrize("slept", [0.2, 3600.0])
def test_a_suspend_is_a_gap_however_short_the_dead_man_time(slept: float) -> None:
    assert gap(Pulse(100.0, 7.0), Pulse(100.4 + slept, 7.0 + slept), deadman=1e9) == "the-machine-slept"


def test_two_clocks_read_one_after_the_other_are_no_suspend() -> None:
    assert gap(Pulse(100.0, 7.0), Pulse(100.4, 7.0004), deadman=2.0) is None


class Sidecar:
    """Beats under a dead-man time that changes. wrong: what the heartbeat complained of."""

    def __init__(self, deadman: float) -> None:
        self.deadman = deadman
        self.beats: list[float] = []
        self.wrong: list[str] = []
        self.news = News()
        self.heart = Heartbeat(lambda: self.deadman, self.beat, self.wrong.append, self.wrong.append)

    def beat(self, number: int) -> None:
        self.beats.append(self.deadman)
        self.news.tell()

    async def until(self, true: Callable[[], bool]) -> None:
        await self.news.until(true, within=10.0)


def test_a_shorter_dead_man_time_begins_with_a_beat_and_is_kept_from_there_on() -> None:
    async def scenario() -> None:
        sidecar = Sidecar(deadman=3600.0)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(sidecar.heart.run())
            await sidecar.until(lambda: len(sidecar.beats) == 1)
            sidecar.heart.hasten()
            assert len(sidecar.beats) == 2, "the guardian must hear of us before its patience shrinks"
            sidecar.deadman = 5.0
            sidecar.heart.answered()
            await sidecar.until(lambda: sidecar.beats.count(5.0) >= 2)
            running.cancel()
        assert sidecar.wrong == []

    asyncio.run(scenario())
