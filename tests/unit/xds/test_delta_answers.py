"""What the incremental protocol makes of a client's answers, case by case."""

from __future__ import annotations

from tests.unit.xds.talks import DeltaTalk, T, there, told
from xds.messages import DeltaRequest
from xds.snapshot import Resource

A1, A2, B1, B2 = (Resource.of(T, name, body) for name in ("a", "b") for body in (b"1", b"2"))


def test_an_accepted_response_is_answered_by_its_nonce_once() -> None:
    server = DeltaTalk(A1)
    sent = server.ask("a")
    answer = there(server.accept(sent))
    assert (answer.response, answer.rejection) == (sent, None)
    assert server.accept(sent) is None


def test_an_unknown_nonce_answers_nothing_but_its_subscriptions_count() -> None:
    server = DeltaTalk(A1)
    assert server.stream.receive(DeltaRequest(T, ("a",), nonce="stale")) is None
    assert told(server.respond()) == (A1,)


def test_answers_may_come_late_and_in_order() -> None:
    server = DeltaTalk(A1)
    first = server.ask("a")
    server.publish(A2)
    for sent in (first, server.respond()):
        assert there(server.accept(sent)).response is sent


def test_rejected_content_is_not_sent_again_until_it_changes() -> None:
    server = DeltaTalk(A1)
    answer = there(server.reject(server.ask("a"), "bad"))
    assert answer.rejection == "bad"
    assert server.respond() is None
    assert server.stream.ledger.standing_rejection(server.edition.snapshot) == answer
    server.publish(A2)
    assert told(server.respond()) == (A2,)
    assert server.stream.ledger.standing_rejection(server.edition.snapshot) is None


def test_what_came_beside_a_bad_one_is_sent_again_without_it() -> None:
    server = DeltaTalk(A1, B1)
    server.reject(server.ask("a", "b"), "a: bad")
    again = server.respond()
    assert told(again) == (B1,)
    server.reject(again, "a: bad")
    assert server.respond() is None, "nobody is named that was sent, so all are blamed"


def test_what_came_beside_a_bad_one_and_changed_since_is_not_sent_twice() -> None:
    server = DeltaTalk(A1, B1)
    sent = server.ask("a", "b")
    server.publish(A1, B2)
    assert told(server.respond()) == (B2,)
    server.reject(sent, "a: bad")
    assert server.respond() is None


def test_what_is_unanswered_and_still_said_has_to_be_answered_although_it_was_told_earlier() -> None:
    server = DeltaTalk(A1, B1)
    first = there(server.ask("a", "b"))
    server.publish(A2, B1)
    second = there(server.respond())
    assert server.unanswered == {first.nonce, second.nonce}, "b was told by the first alone"
    server.publish(A2)
    third = there(server.respond())
    assert server.unanswered == {second.nonce, third.nonce}, "of the first nothing is left"
    for sent in (first, second, third):
        server.accept(sent)
    assert server.unanswered == frozenset()
