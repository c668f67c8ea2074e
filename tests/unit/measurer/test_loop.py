"""When what looks again and again looks: no later than it says, and together."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurer.loop import TICK, together

NOW, PHASE = st.floats(0.0, 1e7), st.floats(0.0, TICK)
LATE = st.lists(st.floats(0.0, 0.1), min_size=2, max_size=20)
EXACT = 1e-6


@given(NOW, st.floats(0.01, 100.0), PHASE)
def test_a_look_is_never_later_than_it_says(now: float, seconds: float, phase: float) -> None:
    assert now < together(now, seconds, phase) <= now + seconds + EXACT


@given(NOW, NOW, st.sampled_from((1.0, 2.0, 30.0)), PHASE)
def test_looks_of_whole_ticks_fall_together_whenever_they_began(
    first: float, second: float, seconds: float, phase: float
) -> None:
    apart = together(first, TICK, phase) - together(second, seconds, phase)
    assert abs(apart - round(apart)) < EXACT


@given(NOW, PHASE)
def test_one_of_four_looks_of_a_quarter_falls_together_with_those_of_a_tick(now: float, phase: float) -> None:
    tick, look = together(now, TICK, phase), together(now, TICK / 4, phase)
    quarters = (tick - look) / (TICK / 4)
    assert abs(quarters - round(quarters)) < EXACT


@given(NOW, st.sampled_from((0.25, 1.0, 2.0)), PHASE, LATE)
def test_from_the_second_look_on_the_period_is_what_it_says_however_late_each_one_was(
    now: float, seconds: float, phase: float, late: list[float]
) -> None:
    looks = [together(now, seconds, phase)]
    for each in late:
        looks.append(together(looks[-1] + each, seconds, phase))
    assert all(abs(after - before - seconds) < EXACT for before, after in pairwise(looks))


@pytest.mark.parametrize("seconds", [0.3, 1.2, 1.9])
def test_a_look_that_rests_for_as_long_as_it_took_is_not_made_more_often(seconds: float) -> None:
    assert together(100.5, seconds, 0.25) == 100.5 + seconds
