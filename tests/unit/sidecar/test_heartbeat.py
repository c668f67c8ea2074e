"""Between two beats time passes as it should, or nobody vouches for what happened."""

from __future__ import annotations

import pytest

from sidecar.heartbeat import Pulse, gap


def test_a_beat_that_comes_in_time_has_no_gap_before_it() -> None:
    assert gap(Pulse(100.0, 7.0), Pulse(100.4, 7.0), deadman=2.0) is None


def test_a_beat_later_than_the_dead_man_time_means_that_the_sidecar_stood_still() -> None:
    assert gap(Pulse(100.0, 7.0), Pulse(102.5, 7.0), deadman=2.0) == "the-sidecar-stood-still"


@pytest.mark.parametrize("slept", [0.2, 3600.0])
def test_a_suspend_is_a_gap_however_short_the_dead_man_time(slept: float) -> None:
    assert gap(Pulse(100.0, 7.0), Pulse(100.4 + slept, 7.0 + slept), deadman=1e9) == "the-machine-slept"


def test_two_clocks_read_one_after_the_other_are_no_suspend() -> None:
    assert gap(Pulse(100.0, 7.0), Pulse(100.4, 7.0004), deadman=2.0) is None
