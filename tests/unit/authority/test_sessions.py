"""What waits for a session that reads slowly, and what everybody is told."""

from __future__ import annotations

import asyncio

from attestation.detectors.alerts import Alert, Detector
from attestation.instance import InstanceId
from authority.sessions import MOST_ALERTS, MOST_WAITING, Announcement, Session, Sessions
from tests.unit.authority.test_denials import numbered
from wire import messages
from wire.messages import Alerted, BreakGlass, Denials, Message, Released
from wire.versions import FIRST, OURS, Version


def listed(version: int) -> Denials:
    return Denials(version, (), b"crl")


def read(session: Session) -> Message:
    """What is to be sent next; nothing here waits."""
    frame = asyncio.run(asyncio.wait_for(session.next(), 0.1))
    assert frame is not None
    return messages.decode(frame).message


def test_a_session_that_does_not_read_is_ended_and_counts_as_ended_by_us() -> None:
    session = Session(OURS.highest)
    for _ in range(MOST_WAITING + 1):
        session.push(Released("order"))
    assert session.ours


def test_a_new_session_of_an_instance_ends_the_one_before_and_gets_the_pushes() -> None:
    sessions, instance = Sessions(), InstanceId("i-" + "0" * 32)
    with sessions.opened(instance, OURS.highest) as first:
        with sessions.opened(instance, OURS.highest) as second:
            assert first.ours
            assert not second.ours
            assert len(sessions) == 1
        assert len(sessions) == 0
    assert sessions.instances() == ()


def test_what_a_peer_does_not_know_is_not_said_to_it() -> None:
    session = Session(Version(1, 3))
    session.push(BreakGlass(("order",)))
    session.push(Released("order"))
    assert read(session) == Released("order")


def test_a_newer_list_takes_the_place_of_one_that_waits_and_fills_nobodys_outbox() -> None:
    session = Session(OURS.highest)
    session.push(Released("before"))
    for version in range(1, 2 * MOST_WAITING):
        session.announce(Announcement(listed(version)))
    session.push(Released("after"))
    assert [read(session) for _ in range(3)] == [Released("before"), listed(2 * MOST_WAITING - 1), Released("after")]
    session.announce(Announcement(listed(99)))
    assert read(session) == listed(99)
    assert not session.ours


def raised(number: int) -> Alert:
    return Alert(Detector.FALCO, "Shell", f"a shell {number}", number)


def test_alerts_without_end_wait_as_one_and_fill_nobodys_outbox() -> None:
    session = Session(OURS.highest)
    session.push(Released("before"))
    for number in range(MOST_ALERTS + 1):
        session.alert(raised(number))
    session.push(Released("after"))
    told = Alerted(tuple(raised(number) for number in range(1, MOST_ALERTS + 1)))
    assert [read(session) for _ in range(3)] == [Released("before"), told, Released("after")]
    session.alert(raised(7))
    assert read(session) == Alerted((raised(7),))
    assert not session.ours


def test_a_peer_of_before_1_8_is_told_no_alert() -> None:
    session = Session(Version(1, 7))
    session.alert(raised(1))
    session.push(Released("order"))
    assert read(session) == Released("order")


def test_a_list_is_encoded_once_for_everybody() -> None:
    sessions = Sessions()
    with sessions.opened(numbered(1), OURS.highest) as first, sessions.opened(numbered(2), OURS.highest) as second:
        sessions.announce(listed(3))
        frames = [asyncio.run(each.next()) for each in (first, second)]
        assert frames[0] is frames[1]
    with sessions.opened(numbered(3), OURS.highest) as later:
        assert asyncio.run(later.next()) is frames[0]


def test_peers_of_before_1_2_and_peers_of_an_empty_beginning_are_told_no_list() -> None:
    sessions = Sessions()
    sessions.announce(listed(0))
    with sessions.opened(numbered(1), OURS.highest) as first, sessions.opened(numbered(2), Version(1, 1)) as old:
        first.push(Released("nothing before"))
        assert read(first) == Released("nothing before")
        sessions.announce(listed(1))
        old.push(Released("all there is"))
        assert read(old) == Released("all there is")
    with sessions.opened(numbered(3), FIRST) as older:
        older.push(Released("all there is"))
        assert read(older) == Released("all there is")
