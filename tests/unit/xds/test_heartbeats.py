"""How a resource with a lifetime is kept alive."""

from __future__ import annotations

from tests.unit.xds.talks import DeltaTalk, T, there, told
from xds.snapshot import Resource

MORTAL, IMMORTAL = Resource.of(T, "a", b"1", ttl=3), Resource.of(T, "b", b"1")


def test_a_heartbeat_sends_in_full_what_has_a_lifetime_and_nothing_else() -> None:
    server = DeltaTalk(MORTAL, IMMORTAL)
    server.ask("a", "b")
    beat = there(server.beat())
    assert (beat.resources, beat.heartbeat) == ((MORTAL,), True)


def test_a_heartbeat_carries_only_what_the_client_was_sent() -> None:
    server = DeltaTalk(MORTAL)
    assert server.beat() is None
    server.ask("b")
    assert server.beat() is None


def test_a_client_that_reconnects_with_the_present_version_gets_heartbeats() -> None:
    server = DeltaTalk(MORTAL)
    assert server.ask("a", holding={"a": MORTAL.version}) is None
    assert told(server.beat()) == (MORTAL,)


def test_a_heartbeat_leaves_alone_what_is_due_as_a_change() -> None:
    changed = Resource.of(T, "a", b"2", ttl=3)
    server = DeltaTalk(MORTAL)
    server.ask("a")
    server.publish(changed)
    assert server.beat() is None
    assert told(server.respond()) == (changed,)


def test_a_heartbeat_is_not_what_a_publication_waits_for() -> None:
    server = DeltaTalk(MORTAL)
    sent = there(server.ask("a"))
    assert told(server.beat()) == (MORTAL,)
    assert server.unanswered == {sent.nonce}


def test_a_rejected_heartbeat_brings_nothing_again() -> None:
    server = DeltaTalk(MORTAL, Resource.of(T, "b", b"1", ttl=3))
    server.accept(server.ask("a", "b"))
    server.reject(server.beat(), "a: bad")
    assert server.respond() is None
