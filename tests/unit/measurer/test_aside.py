"""Looks that may hang: what waits is done all the same, the loop never waits, and it ends somewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from measurer.clock import monotonic
from measurer.loop import Loop, Reactor
from measurer.processes.aside import MOST_HUNG, MOST_WAITING, Aside, Look

PATIENCE = 0.05


class Stage:
    """A loop that turns until so much has been told. pipe: reading it hangs until the stage is over."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.loop = Loop(self.reactor)
        self.told: list[object] = []
        self.let_go = 0
        self.pipe = os.pipe()
        self.aside = Aside(self.loop, lambda: self.say("worn out"), PATIENCE)

    def say(self, what: object) -> None:
        self.told.append(what)

    def ask(self, read: Callable[[], object], name: str = "") -> bool:
        return self.aside.take(Look(read, self.say, lambda: self.say(f"{name} hung"), self.release))

    def hang(self, name: str = "one") -> bool:
        return self.ask(lambda: os.read(self.pipe[0], 1), name)

    def release(self) -> None:
        self.let_go += 1

    def until(self, enough: int) -> list[object]:
        end = monotonic() + 10.0

        def look() -> None:
            self.reactor.stopped = len(self.told) >= enough or monotonic() > end
            self.loop.after("look", 0.005, look)

        self.reactor.stopped = False
        look()
        self.reactor.run()
        self.loop.cancel("look")
        return self.told

    def end(self) -> None:
        self.aside.close()
        os.write(self.pipe[1], b"x" * (MOST_HUNG + 1))
        self.reactor.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    running = Stage()
    yield running
    running.end()


def test_looks_are_told_in_order_and_each_is_let_go(stage: Stage) -> None:
    for number in range(20):
        stage.ask(lambda number=number: number)  # type: ignore[misc]
    stage.aside.afterwards(lambda: stage.say("after"))
    assert stage.until(21) == [*range(20), "after"]
    assert stage.let_go == 20
    stage.aside.afterwards(lambda: stage.say("at once"))
    assert stage.told[-1] == "at once"


def test_a_look_that_hangs_is_told_and_the_next_are_done(stage: Stage) -> None:
    stage.hang()
    stage.ask(lambda: "next")
    stage.aside.afterwards(lambda: stage.say("after"))
    assert stage.until(3) == ["one hung", "next", "after"]


def test_one_that_was_slow_and_comes_back_is_not_told_twice(stage: Stage) -> None:
    stage.hang()
    assert stage.until(1) == ["one hung"]
    os.write(stage.pipe[1], b"x")
    stage.ask(lambda: "next")
    assert stage.until(2) == ["one hung", "next"]


def test_hanging_time_and_again_ends_it(stage: Stage) -> None:
    for number in range(MOST_HUNG):
        stage.hang(str(number))
    stage.ask(lambda: "never")
    assert stage.until(MOST_HUNG + 1) == [*(f"{number} hung" for number in range(MOST_HUNG)), "worn out"]
    assert not stage.ask(lambda: "never")


def test_more_than_can_wait_is_refused(stage: Stage) -> None:
    stage.hang()
    taken = [stage.ask(lambda: "waited") for _ in range(MOST_WAITING + 2)]
    assert not taken[-1]
    assert taken.count(True) >= MOST_WAITING - 1


def test_what_breaks_in_a_look_breaks_where_it_is_heard_of(stage: Stage) -> None:
    stage.ask(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        stage.until(1)
