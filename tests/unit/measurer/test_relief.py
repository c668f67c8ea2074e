"""A loop that goes on in another thread when an act of one part hangs: with real threads, and reads of empty pipes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from attestation.errors import Unavailable
from measurer.driver import Driver
from measurer.loop import Loop, Reactor
from measurer.relief import LOOKS, Relief
from measurer.stalls import PENALTY, Stalls

LOOK = 0.05
PATIENCE = 10.0


@dataclass
class Part:
    """A session's part of the loop. heard: what it did, and that it failed."""

    reactor: Reactor
    heard: list[str] = field(default_factory=list)
    failed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.loop = Loop(self.reactor, self._fail)

    def _fail(self, error: Exception) -> None:
        assert isinstance(error, Unavailable)
        self.heard.append("failed")
        self.failed.set()


class Turning:
    """A reactor that is turned. begun: what its own part had begun to do, taken up again by `resume`."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.own = Loop(self.reactor)
        self.begun: list[str] = []
        self.taken_up: list[str] = []
        self.relief = Relief(self.reactor, self.own, self._resume, LOOK)
        self.error: BaseException | None = None
        self._asks, self._asked = os.pipe()
        self.own.watch(self._asks, self._do)
        self._wanted: list[tuple[Loop, threading.Event]] = []
        self._main = threading.Thread(target=self._run)

    def start(self) -> None:
        self._main.start()

    def end(self) -> None:
        assert self.relief.stop(PATIENCE)
        self.join()
        for each in (self._asks, self._asked):
            os.close(each)

    def join(self) -> None:
        self._main.join(PATIENCE)
        assert not self._main.is_alive()

    def does(self, part: Loop, seconds: float = PATIENCE) -> bool:
        """Whether an act of this part is done within so long."""
        done = threading.Event()
        self._wanted.append((part, done))
        os.write(self._asked, b".")
        return done.wait(seconds)

    def _do(self) -> None:
        os.read(self._asks, 1)
        part, done = self._wanted.pop(0)
        part.within(done.set)

    def _resume(self) -> None:
        self.taken_up.append("all")
        while self.begun:
            self.taken_up.append(self.begun.pop(0))

    def _run(self) -> None:
        try:
            self.relief.run()
        except ValueError as error:
            self.error = error


@pytest.fixture
def turning() -> Iterator[Turning]:
    made = Turning()
    yield made
    made.end()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def waits(pipe: tuple[int, int], part: Part) -> None:
    """An act that hangs until something comes through the pipe."""
    part.heard.append("hangs")
    os.read(pipe[0], 1)
    part.heard.append("goes on")


def test_the_others_go_on_while_one_hangs_which_has_failed_alone(turning: Turning, pipe: tuple[int, int]) -> None:
    hanging, other = Part(turning.reactor), Part(turning.reactor)
    hanging.loop.after("act", 0.0, lambda: waits(pipe, hanging))
    turning.start()
    assert hanging.failed.wait(PATIENCE)
    assert turning.does(other.loop)
    assert hanging.loop.closed
    assert hanging.loop.hangs
    assert other.heard == []
    assert turning.taken_up == ["all"]
    os.write(pipe[1], b".")


def test_who_comes_back_does_nothing_more_and_what_waited_for_that_is_done(
    turning: Turning, pipe: tuple[int, int]
) -> None:
    hanging, given_back = Part(turning.reactor), threading.Event()
    hanging.loop.after("act", 0.0, lambda: waits(pipe, hanging))
    turning.start()
    assert hanging.failed.wait(PATIENCE)
    hanging.loop.once_back(given_back.set)
    assert not given_back.wait(LOOK)
    os.write(pipe[1], b".")
    assert given_back.wait(PATIENCE)
    assert hanging.heard == ["hangs", "failed"]
    assert not hanging.loop.hangs


def test_long_work_that_hangs_is_taken_up_by_nobody(turning: Turning, pipe: tuple[int, int]) -> None:
    hanging, other = Part(turning.reactor), Part(turning.reactor)

    def work() -> Iterator[None]:
        yield
        waits(pipe, hanging)
        yield

    hanging.loop.begin(work())
    turning.start()
    assert hanging.failed.wait(PATIENCE)
    assert turning.does(other.loop)
    os.write(pipe[1], b".")
    assert turning.does(other.loop)
    assert hanging.heard == ["hangs", "failed"]


def test_who_uses_the_processor_for_long_is_not_taken_for_one_that_hangs(turning: Turning) -> None:
    busy, done, end = Part(turning.reactor), threading.Event(), time.monotonic() + LOOK * (LOOKS + 4)

    def compute() -> None:
        while time.monotonic() < end:
            sum(range(10_000))
        done.set()

    busy.loop.after("act", 0.0, compute)
    turning.start()
    assert done.wait(PATIENCE)
    assert turning.does(busy.loop)
    assert turning.taken_up == []


def test_what_belongs_to_no_session_is_waited_for(turning: Turning, pipe: tuple[int, int]) -> None:
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        os.read(pipe[0], 1)

    turning.own.after("act", 0.0, wait)
    turning.start()
    assert begun.wait(PATIENCE)
    assert not turning.does(turning.own, LOOK * (LOOKS + 4))
    os.write(pipe[1], b".")
    assert turning.does(turning.own)
    assert turning.taken_up == []


def test_what_all_share_takes_up_what_it_had_begun_when_one_hung_in_the_midst_of_it(
    turning: Turning, pipe: tuple[int, int]
) -> None:
    hanging, other = Part(turning.reactor), Part(turning.reactor)

    def tell_all() -> None:
        turning.begun.append("tell the other one")
        hanging.loop.within(waits, pipe, hanging)
        turning.taken_up.append("by the one that hung")

    turning.own.after("act", 0.0, tell_all)
    turning.start()
    assert hanging.failed.wait(PATIENCE)
    os.write(pipe[1], b".")
    assert turning.does(other.loop)
    assert turning.taken_up == ["all", "tell the other one"]


def test_what_an_act_of_no_session_raises_ends_all(turning: Turning) -> None:
    def fail() -> None:
        raise ValueError

    turning.own.after("act", 0.0, fail)
    turning.start()
    turning.join()
    assert isinstance(turning.error, ValueError)


def test_an_act_that_is_over_is_taken_away_by_nobody_and_one_within_another_takes_that_along() -> None:
    driver: Driver[str] = Driver()
    over = driver.begin("first")
    driver.end(over)
    assert driver.take(over) == ()
    assert driver.within is None
    driver.begin("outer")
    assert driver.take(driver.begin("inner")) == ("outer", "inner")


def test_who_stalled_is_not_measured_again_for_a_while_and_nobody_else_is_held_to_it() -> None:
    stalls = Stalls()
    stalls.note("pod", 100.0)
    stalls.check("another", 100.0)
    with pytest.raises(Unavailable, match="again in 10 s"):
        stalls.check("pod", 100.0 + PENALTY - 10.0)
    stalls.check("pod", 100.0 + PENALTY)
