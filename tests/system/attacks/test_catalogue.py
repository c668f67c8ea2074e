"""Every act of the catalogue, by an intruder in a measured workload: told as what it is, closed for at a real Envoy.

`proofbeat bench detect` says how soon. A new signal's act is a new row of proofbeat/bench/detect/catalogue.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from operator import attrgetter

import pytest

from proofbeat.bench.detect.catalogue import CATALOGUE, Attack
from proofbeat.bench.detect.run import Detecting, Sample
from proofbeat.bench.detect.scene import staged

PATIENCE = 60.0


class Town:
    """One mesh for all acts of a kind, in a thread of its own."""

    def __init__(self, *, gated: bool) -> None:
        self._gated = gated
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._ready: Future[Detecting] = Future()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))
        self._thread.start()
        self._detecting = self._ready.result(PATIENCE)

    def sample(self, attack: Attack) -> Sample:
        return asyncio.run_coroutine_threadsafe(self._detecting.sample(attack), self._loop).result(PATIENCE)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        try:
            async with staged(gated=self._gated) as scene:
                self._ready.set_result(await Detecting.of(scene))
                await self._over.wait()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)


@pytest.fixture(scope="module")
def open_town() -> Iterator[Town]:
    running = Town(gated=False)
    yield running
    running.end()


@pytest.fixture(scope="module")
def gated_town() -> Iterator[Town]:
    running = Town(gated=True)
    yield running
    running.end()


@pytest.fixture
def town(request: pytest.FixtureRequest, attack: Attack) -> Town:
    found: Town = request.getfixturevalue("gated_town" if attack.gated else "open_town")
    return found


BY_TOWN = sorted(CATALOGUE, key=attrgetter("gated"))


@pytest.mark.parametrize("attack", BY_TOWN, ids=lambda each: each.name)
def test_each_act_is_told_as_its_signal_and_class_and_closed_for_until_it_is_undone(attack: Attack, town: Town) -> None:
    sample = town.sample(attack)  # raises what was told instead, or that nothing was closed or opened again
    assert sample.told == attack.told_class
    assert sample.violation >= 0
