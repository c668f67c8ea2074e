"""The rungs of a closing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.delivery.ladder import (
    MOST_SWEEPS,
    Acknowledged,
    Bounded,
    Closed,
    Closing,
    Command,
    Event,
    Kill,
    Late,
    Rejected,
    Settled,
    Sweep,
    SweepDone,
    Wait,
    climb,
)

BEGUN = Closing("file-modified", first_sweep=7)


def climbed(*events: Event) -> tuple[Closing, list[Command]]:
    closing, commands = BEGUN, []
    for event in events:
        outcome = climb(closing, event)
        closing = outcome.closing
        commands.extend(outcome.commands)
    return closing, commands


def test_the_first_sweep_alone_is_no_proof_that_it_is_closed() -> None:
    _, commands = climbed(SweepDone(7, 100, 0))
    assert commands == []


def test_acknowledged_settled_and_swept_empty_is_closed() -> None:
    closing, commands = climbed(SweepDone(7, 100, 0), Acknowledged(), Settled(), SweepDone(8, 2, 0))
    assert [type(each) for each in commands] == [Wait, Sweep, Closed]
    assert commands[-1] == Closed(102, killed=False)
    assert closing.finished


def test_a_first_sweep_that_answers_late_does_not_pass_for_the_last() -> None:
    closing, _ = climbed(Acknowledged(), Settled(), SweepDone(7, 100, 0))
    assert not closing.finished


def test_connections_that_stay_are_swept_again_and_then_envoy_is_killed() -> None:
    events: list[Event] = [Acknowledged(), Settled(), *(SweepDone(7 + n, 0, 3) for n in range(1, MOST_SWEEPS))]
    _, commands = climbed(*events)
    assert [type(each) for each in commands][-1] is Kill
    assert sum(isinstance(each, Sweep) for each in commands) == MOST_SWEEPS - 1


@pytest.mark.parametrize("event", [Rejected("bad certificate"), Late()])
def test_a_rejected_or_late_poison_kills_envoy_at_once(event: Event) -> None:
    _, commands = climbed(event)
    assert [type(each) for each in commands] == [Kill]


def test_a_killed_envoy_with_nothing_left_is_closed_and_says_so() -> None:
    closing, commands = climbed(Late(), SweepDone(8, 5, 0))
    assert commands[-1] == Closed(5, killed=True)
    assert closing.finished


def test_what_cannot_even_be_killed_is_reported_as_bounded_not_as_closed() -> None:
    _, commands = climbed(Late(), SweepDone(8, 0, 4))
    assert commands[-1] == Bounded(4)


EVENTS = st.one_of(
    st.just(Acknowledged()),
    st.just(Settled()),
    st.just(Late()),
    st.just(Rejected("no")),
    st.builds(SweepDone, st.integers(5, 14), st.integers(0, 3), st.integers(0, 2)),
)


@given(st.lists(EVENTS, max_size=25))
def test_closed_is_said_at_most_once_and_never_without_an_acknowledgement_or_a_kill(events: list[Event]) -> None:
    closing, said = BEGUN, 0
    for event in events:
        outcome = climb(closing, event)
        closing = outcome.closing
        for command in outcome.commands:
            if isinstance(command, Closed):
                said += 1
                assert closing.killed or closing.sweeps > 1
                assert isinstance(event, SweepDone)
                assert event.left == 0
    assert said <= 1
