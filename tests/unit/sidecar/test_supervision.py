"""When an Envoy of ours comes back, and when it is said that it cannot live."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.supervision import FIRST, LOOPING, MOST, STEADY, Course, End, restart

CRASHED = End(lived=0.1, wanted=False, why="exit status 1")
STEADILY = End(lived=STEADY, wanted=False, why="ended by SIGSEGV")
CLOSED = End(lived=0.1, wanted=True, why="ended by SIGKILL")


def after(*ends: End) -> Course:
    course = Course()
    for end in ends:
        course, _ = restart(course, end, 0.0)
    return course


def test_one_that_was_ended_for_a_closing_is_back_at_once_and_counts_as_no_failure() -> None:
    course, pause = restart(after(CRASHED, CRASHED), CLOSED, 0.999)
    assert (course.failures, pause) == (0, 0.0)


def test_each_failure_may_double_the_pause_up_to_the_longest() -> None:
    pauses, course = [], Course()
    for _ in range(12):
        course, pause = restart(course, CRASHED, 1.0)
        pauses.append(pause)
    assert pauses[:3] == [FIRST, FIRST * 2, FIRST * 4]
    assert pauses[-1] == MOST


def test_one_that_lived_long_enough_begins_anew() -> None:
    course, pause = restart(after(*[CRASHED] * 9), STEADILY, 1.0)
    assert (course.failures, pause) == (1, FIRST)


@pytest.mark.parametrize(("count", "looping"), [(LOOPING - 1, False), (LOOPING, True)])
def test_it_is_a_loop_once_several_in_a_row_did_not_live(count: int, looping: bool) -> None:
    assert after(*[CRASHED] * count).looping is looping


@given(
    st.lists(st.builds(End, st.floats(0, 100), st.booleans(), st.just("")), max_size=40),
    st.floats(0, 1, exclude_max=True),
)
def test_no_pause_is_longer_than_the_longest(ends: list[End], chance: float) -> None:
    course = Course()
    for end in ends:
        course, pause = restart(course, end, chance)
        assert 0 <= pause <= MOST
