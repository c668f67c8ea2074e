"""The rungs of a closing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.delivery.ladder import (
    DEATH_WITHIN,
    MOST_SWEEPS,
    QUIT_GRACE,
    SETTLE,
    VERIFY_WITHIN,
    Acknowledged,
    Bounded,
    Closed,
    Closing,
    Command,
    Ended,
    Event,
    Kill,
    Quit,
    QuitFailed,
    Rejected,
    Settled,
    Sweep,
    SweepDone,
    Unacknowledged,
    Undying,
    Unverified,
    Wait,
    Way,
    climb,
)

BEGUN = Closing("file-modified", first_sweep=7)
OURS = Closing("file-modified", first_sweep=7, quits=True)
"""Of an Envoy whose admin socket is ours."""


def climbed(*events: Event, begun: Closing = BEGUN) -> tuple[Closing, list[Command]]:
    closing, commands = begun, list[Command]()
    for event in events:
        outcome = climb(closing, event)
        closing = outcome.closing
        commands.extend(outcome.commands)
    return closing, commands


def rungs(commands: list[Command]) -> list[type[Command]]:
    return [type(each) for each in commands if not isinstance(each, Wait)]


def test_the_first_sweep_alone_is_no_proof_that_it_is_closed() -> None:
    _, commands = climbed(SweepDone(7, 100, 0))
    assert commands == []


def test_acknowledged_settled_and_swept_empty_is_closed() -> None:
    closing, commands = climbed(SweepDone(7, 100, 0), Acknowledged(), Settled(), SweepDone(8, 2, 0))
    assert commands == [
        Wait(SETTLE, Settled()),
        Sweep(8),
        Wait(VERIFY_WITHIN, Unverified()),
        Closed(102, Way.VERIFIED),
    ]
    assert closing.finished


def test_a_first_sweep_that_answers_late_does_not_pass_for_the_last() -> None:
    closing, _ = climbed(Acknowledged(), Settled(), SweepDone(7, 100, 0))
    assert not closing.finished


def test_connections_that_stay_are_swept_again_and_then_envoy_is_killed() -> None:
    events: list[Event] = [Acknowledged(), Settled(), *(SweepDone(7 + n, 0, 3) for n in range(1, MOST_SWEEPS))]
    _, commands = climbed(*events)
    assert rungs(commands) == [*[Sweep] * (MOST_SWEEPS - 1), Kill]


@pytest.mark.parametrize("event", [Rejected("bad certificate"), Unacknowledged()])
def test_a_rejected_or_late_poison_ends_envoy_at_once(event: Event) -> None:
    assert rungs(climbed(event)[1]) == [Kill]
    assert rungs(climbed(event, begun=OURS)[1]) == [Quit]


def test_a_poison_that_was_acknowledged_in_time_is_not_late_while_it_is_verified() -> None:
    _, commands = climbed(Acknowledged(), Unacknowledged(), Settled(), SweepDone(8, 0, 0))
    assert rungs(commands) == [Sweep, Closed]


def test_sweeps_that_take_too_long_end_envoy() -> None:
    _, commands = climbed(Acknowledged(), Settled(), Unverified())
    assert rungs(commands) == [Sweep, Kill]


def test_an_envoy_that_quits_when_it_is_asked_is_closed_once_a_sweep_finds_nothing() -> None:
    closing, commands = climbed(Unacknowledged(), Ended(), SweepDone(8, 5, 0), begun=OURS)
    assert rungs(commands) == [Quit, Sweep, Closed]
    assert commands[-1] == Closed(5, Way.QUIT)
    assert closing.finished


def test_an_envoy_that_stays_although_it_was_asked_is_killed() -> None:
    _, asked = climbed(Unacknowledged(), begun=OURS)
    (grace,) = [each for each in asked if isinstance(each, Wait)]
    assert grace.seconds == QUIT_GRACE
    _, commands = climbed(Unacknowledged(), grace.event, Ended(), SweepDone(9, 5, 0), begun=OURS)
    assert rungs(commands) == [Quit, Kill, Sweep, Closed]
    assert commands[-1] == Closed(5, Way.KILLED)


def test_a_late_acknowledgement_does_not_call_off_what_has_begun() -> None:
    _, commands = climbed(Unacknowledged(), Acknowledged(), Settled(), QuitFailed("no"), begun=OURS)
    assert rungs(commands) == [Quit, Kill]


def test_an_envoy_that_ends_by_itself_is_closed_without_anybodys_signal() -> None:
    _, commands = climbed(Ended(), SweepDone(8, 0, 0))
    assert commands == [Sweep(8), Closed(0, Way.ENDED)]


def test_that_a_kill_was_sent_is_no_proof_before_envoy_has_ended() -> None:
    closing, _ = climbed(Unacknowledged(), SweepDone(8, 0, 0))
    assert not closing.finished
    closing, commands = climbed(Unacknowledged(), SweepDone(8, 0, 0), Ended(), SweepDone(9, 3, 0))
    assert commands[-1] == Closed(3, Way.KILLED)
    assert closing.finished


def test_what_cannot_even_be_killed_is_reported_as_bounded_not_as_closed() -> None:
    _, commands = climbed(Unacknowledged(), SweepDone(8, 0, 4), Undying())
    assert Wait(DEATH_WITHIN, Undying()) in commands
    assert commands[-1] == Bounded(4)
    assert climbed(Unacknowledged(), Undying())[1][-1] == Bounded(1)


def test_what_the_kernel_still_sends_for_an_ended_envoy_is_waited_for_and_not_for_ever() -> None:
    _, commands = climbed(Unacknowledged(), Ended(), SweepDone(9, 0, 1), Settled(), SweepDone(10, 0, 0))
    assert rungs(commands) == [Kill, Sweep, Sweep, Closed]
    lasting: list[Event] = [each for n in range(9, 20) for each in (SweepDone(n, 0, 1), Settled())]
    assert climbed(Unacknowledged(), Ended(), *lasting)[1][-1] == Bounded(1)


EVENTS = st.one_of(
    st.just(Acknowledged()),
    st.just(Settled()),
    st.just(Unacknowledged()),
    st.just(Unverified()),
    st.just(Rejected("no")),
    st.just(QuitFailed("it stayed")),
    st.just(Ended()),
    st.just(Undying()),
    st.builds(SweepDone, st.integers(5, 14), st.integers(0, 3), st.integers(0, 2)),
)


@given(st.lists(EVENTS, max_size=25), st.booleans())
def test_closed_is_said_at_most_once_and_never_without_an_acknowledgement_or_an_end(
    events: list[Event], quits: bool
) -> None:
    closing, said = Closing("x", 7, quits=quits), 0
    for event in events:
        outcome = climb(closing, event)
        closing = outcome.closing
        for command in outcome.commands:
            if isinstance(command, Closed):
                said += 1
                assert closing.ended or (closing.sweeps > 1 and not closing.killed)
                assert isinstance(event, SweepDone)
                assert event.left == 0
    assert said <= 1


@given(st.lists(EVENTS, max_size=25), st.booleans())
def test_envoy_is_asked_once_and_killed_once_and_never_asked_after_it_was_killed(
    events: list[Event], quits: bool
) -> None:
    said = rungs(climbed(*events, begun=Closing("x", 7, quits=quits))[1])
    ends = [each for each in said if each in (Quit, Kill)]
    assert ends in ([], [Quit], [Kill], [Quit, Kill])
    assert quits or Quit not in ends
