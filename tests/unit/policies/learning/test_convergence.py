"""When watching for longer would bring nothing new, as far as watching can tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.author.learning.convergence import LEAST, Convergence

TIMES = st.floats(0, 10_000, allow_nan=False)


def told(*news: float) -> Convergence:
    found = Convergence()
    for at in news:
        found.news(at)
    return found


@given(st.lists(TIMES), TIMES)
def test_it_has_converged_after_as_long_as_the_last_new_thing_took_and_after_half_a_minute_at_least(
    news: list[float], later: float
) -> None:
    found, last = told(*news), max(news, default=0.0)
    assert found.converged(last + later) == (later >= max(LEAST, last) or found.left(last + later) == 0.0)
    assert not found.converged(last + max(LEAST, last) * 0.999)


@given(st.lists(TIMES), TIMES, TIMES)
def test_what_is_left_of_it_is_the_time_after_which_it_has_converged_if_nothing_comes(
    news: list[float], later: float, later_still: float
) -> None:
    found, now = told(*news), max(news, default=0.0) + later
    left = found.left(now)
    assert found.converged(now) == (left == 0.0)
    assert found.converged(now + left + 0.001)
    if found.converged(now):
        assert found.converged(now + later_still), "time alone takes nothing back"


@given(st.lists(TIMES), TIMES)
def test_something_new_takes_it_back_and_what_came_before_that_does_not_matter(news: list[float], at: float) -> None:
    found = told(*news, at)
    latest = max([*news, at])
    assert not found.converged(latest)
    assert (found.last, found.needed) == (latest, max(LEAST, latest))
    assert found.quiet(latest + 3.0) == (latest + 3.0) - latest


@given(st.permutations([1.0, 40.0, 7.5]))
def test_news_that_are_told_late_change_nothing(news: list[float]) -> None:
    assert told(*news).last == 40.0
