"""How far behind a collector is, from beats and the times at which they come out."""

from __future__ import annotations

from measurer.heartbeat import INTERVAL, LIMIT, Pulse


def test_a_beat_that_comes_out_at_once_is_behind_nothing() -> None:
    pulse = Pulse(100.0)
    assert pulse.beats(100.0 + INTERVAL)
    pulse.heard(100.0 + INTERVAL + 0.001)
    assert pulse.settle() < LIMIT


def test_a_beat_that_comes_out_late_was_behind_by_as_much() -> None:
    pulse = Pulse(100.0)
    pulse.beats(100.0 + INTERVAL)
    pulse.heard(100.0 + INTERVAL + 3.0)
    assert pulse.settle() == 3.0
    assert pulse.settle() == 0.0


def test_no_beat_is_sent_while_one_is_under_way_and_the_time_it_takes_counts_before_it_is_out() -> None:
    pulse = Pulse(100.0)
    sent = 100.0 + INTERVAL
    assert pulse.beats(sent)
    assert not pulse.beats(sent + INTERVAL)
    assert not pulse.beats(sent + 2 * INTERVAL)
    assert pulse.settle() == 2 * INTERVAL
    pulse.heard(sent + 2 * INTERVAL + 0.5)
    assert pulse.beats(sent + 3 * INTERVAL)


def test_a_turn_that_comes_late_counts_even_if_its_beat_is_out_at_once() -> None:
    pulse = Pulse(100.0)
    pulse.beats(100.0 + INTERVAL + 2.5)
    pulse.heard(100.0 + INTERVAL + 2.5)
    assert pulse.settle() == 2.5


def test_what_was_never_sent_cannot_come_out() -> None:
    pulse = Pulse(100.0)
    pulse.heard(500.0)
    assert pulse.settle() == 0.0
