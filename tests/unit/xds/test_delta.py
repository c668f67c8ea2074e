"""The incremental protocol, case by case."""

from __future__ import annotations

import pytest

from tests.unit.xds.talks import DeltaTalk, T, told
from xds.delta import DeltaStream
from xds.errors import StreamError
from xds.ledger import Edition
from xds.messages import DeltaRequest
from xds.snapshot import Resource, Snapshot
from xds.subscription import FULL_STATE_TYPES, MAX_NAMES

LISTENER = next(url for url in sorted(FULL_STATE_TYPES) if "Listener" in url)
A1, A2, B1 = Resource.of(T, "a", b"1"), Resource.of(T, "a", b"2"), Resource.of(T, "b", b"1")


def test_a_subscription_is_answered_with_the_resource() -> None:
    assert told(DeltaTalk(A1, B1).ask("a")) == (A1,)


def test_nothing_is_sent_that_was_not_asked_for() -> None:
    server = DeltaTalk(A1)
    server.ask("a")
    server.publish(A1, B1)
    assert server.respond() is None


def test_a_publication_without_a_change_sends_nothing() -> None:
    server = DeltaTalk(A1)
    server.ask("a")
    server.publish(Resource.of(T, "a", b"1"))
    assert server.respond() is None


def test_a_changed_resource_is_sent_although_the_last_response_is_unanswered() -> None:
    server = DeltaTalk(A1)
    server.ask("a")
    server.publish(A2)
    assert told(server.respond()) == (A2,)


def test_a_missing_name_does_not_withhold_the_others_and_is_not_called_removed() -> None:
    server = DeltaTalk(A1)
    response = server.ask("a", "missing")
    assert response is not None
    assert (response.resources, response.removed) == ((A1,), ())


def test_a_missing_name_alone_is_met_with_silence_until_it_exists() -> None:
    server = DeltaTalk()
    assert server.ask("a") is None
    server.publish(A1)
    assert told(server.respond()) == (A1,)


def test_where_absence_is_final_a_missing_name_is_reported_removed_once_and_sent_when_it_exists() -> None:
    server = DeltaTalk(A1, final=True)
    response = server.ask("a", "b")
    assert response is not None
    assert (response.resources, response.removed) == ((A1,), ("b",))
    server.publish(A2)
    response = server.respond()
    assert response is not None
    assert (response.resources, response.removed) == ((A2,), ())
    server.publish(A2, B1)
    assert told(server.respond()) == (B1,)


def test_where_absence_is_final_asking_again_is_answered_again() -> None:
    server = DeltaTalk(final=True)
    for _ in range(2):
        response = server.ask("a")
        assert response is not None
        assert response.removed == ("a",)


def test_absence_that_becomes_final_is_told_to_whoever_waits() -> None:
    server = DeltaTalk()
    assert server.ask("a", "b") is None
    server.edition = Edition(Snapshot.of(B1, complete=[T]), 2)
    response = server.respond()
    assert response is not None
    assert (response.resources, response.removed) == ((B1,), ("a",))


def test_before_the_first_publication_no_absence_is_final() -> None:
    stream = DeltaStream(LISTENER)
    stream.receive(DeltaRequest(LISTENER, ("*", "a")))
    assert stream.respond(Edition(Snapshot.EMPTY, 0), "1") is None


def test_a_name_that_is_dropped_is_not_reported_removed() -> None:
    server = DeltaTalk()
    server.ask("a", "b")
    server.ask(without=("a",))
    server.edition = Edition(Snapshot.of(complete=[T]), 2)
    response = server.respond()
    assert response is not None
    assert response.removed == ("b",)


def test_a_resource_that_vanishes_is_reported_removed_once() -> None:
    server = DeltaTalk(A1)
    server.ask("a")
    server.publish()
    response = server.respond()
    assert response is not None
    assert (response.resources, response.removed) == ((), ("a",))
    server.publish(B1)
    assert server.respond() is None


def test_a_resource_that_comes_back_is_sent_again() -> None:
    server = DeltaTalk(A1)
    server.ask("a")
    server.publish()
    server.respond()
    server.publish(A1)
    assert told(server.respond()) == (A1,)


def test_what_is_unsubscribed_is_sent_no_more() -> None:
    server = DeltaTalk(A1)
    server.ask("a")
    assert server.ask(without=("a",)) is None
    server.publish(A2)
    assert server.respond() is None
    server.publish()
    assert server.respond() is None


def test_subscribing_again_sends_again_since_the_client_may_have_dropped_it() -> None:
    server = DeltaTalk(A1)
    server.ask("a")
    assert told(server.ask("a")) == (A1,)
    server.ask(without=("a",))
    assert told(server.ask("a")) == (A1,)


def test_after_a_reconnect_what_the_client_holds_is_skipped() -> None:
    assert DeltaTalk(A1).ask("a", holding={"a": A1.version}) is None


def test_after_a_reconnect_what_changed_is_sent_and_what_is_gone_is_removed() -> None:
    response = DeltaTalk(A2).ask("a", "b", holding={"a": A1.version, "b": B1.version})
    assert response is not None
    assert (response.resources, response.removed) == ((A2,), ("b",))


def test_after_a_reconnect_a_declared_name_that_is_not_wanted_is_ignored() -> None:
    response = DeltaTalk(A1).ask("a", holding={"b": "x"})
    assert response is not None
    assert response.removed == ()


def test_an_empty_first_request_for_listeners_means_all_of_them() -> None:
    one, two = Resource.of(LISTENER, "1", b""), Resource.of(LISTENER, "2", b"")
    server = DeltaTalk(one, type_url=LISTENER)
    assert told(server.ask()) == (one,)
    server.publish(one, two)
    assert told(server.respond()) == (two,)


def test_an_empty_first_request_for_another_type_means_nothing() -> None:
    assert DeltaTalk(A1).ask() is None


def test_who_asks_for_everything_learns_that_there_is_nothing() -> None:
    server = DeltaTalk(type_url=LISTENER)
    assert told(server.ask()) == ()
    assert server.respond() is None


def test_before_the_first_publication_even_who_asks_for_everything_waits() -> None:
    stream = DeltaStream(LISTENER)
    stream.receive(DeltaRequest(LISTENER))
    assert stream.respond(Edition(Snapshot.EMPTY, 0), "1") is None
    assert stream.respond(Edition(Snapshot.EMPTY, 1), "2") is not None


def test_the_legacy_wildcard_outlives_a_name_until_the_star_is_unsubscribed() -> None:
    one, two = Resource.of(LISTENER, "1", b""), Resource.of(LISTENER, "2", b"")
    server = DeltaTalk(one, two, type_url=LISTENER)
    server.ask()
    server.ask("1")
    server.publish(one, Resource.of(LISTENER, "2", b"new"))
    assert [r.name for r in told(server.respond())] == ["2"]
    server.ask(without=("*",))
    server.publish(one, two)
    assert server.respond() is None
    server.publish(Resource.of(LISTENER, "1", b"new"), two)
    assert [r.name for r in told(server.respond())] == ["1"]


def test_the_star_subscribes_to_everything_of_any_type() -> None:
    assert told(DeltaTalk(A1, B1).ask("*")) == (A1, B1)


def test_a_name_unsubscribed_under_the_star_is_sent_again_since_it_is_still_wanted() -> None:
    server = DeltaTalk(A1, B1)
    server.ask("*", "a")
    assert told(server.ask(without=("a",))) == (A1,)


def test_a_name_unsubscribed_under_the_star_is_reported_removed_where_there_is_none() -> None:
    server = DeltaTalk(A1, B1)
    server.ask("*")
    response = server.ask(without=("a", "missing"))
    assert response is not None
    assert (response.resources, response.removed) == ((A1,), ("missing",))


def test_who_asks_for_everything_later_learns_that_there_is_nothing() -> None:
    server = DeltaTalk()
    assert server.ask("a") is None
    response = server.ask("*")
    assert response is not None
    assert (response.resources, response.removed) == ((), ("a",))
    assert server.ask(without=("*",)) is None
    assert told(server.ask("*")) == ()


def test_a_star_taken_up_again_while_a_response_is_under_way_is_told_what_of_that_is_gone() -> None:
    server = DeltaTalk(A1, B1)
    server.ask("*")  # the client has not read the answer when it changes its mind twice
    server.ask(without=("*",))
    server.publish(B1)
    response = server.ask("*")
    assert response is not None
    assert (response.resources, response.removed) == ((B1,), ("a",))


def test_an_accepted_response_is_answered_by_its_nonce_once() -> None:
    server = DeltaTalk(A1)
    sent = server.ask("a")
    assert sent is not None
    answer = server.stream.receive(DeltaRequest(T, nonce=sent.nonce))
    assert answer is not None
    assert (answer.response, answer.rejection) == (sent, None)
    assert server.stream.receive(DeltaRequest(T, nonce=sent.nonce)) is None


def test_an_unknown_nonce_answers_nothing_but_its_subscriptions_count() -> None:
    server = DeltaTalk(A1)
    assert server.stream.receive(DeltaRequest(T, ("a",), nonce="stale")) is None
    assert told(server.respond()) == (A1,)


def test_answers_may_come_late_and_in_order() -> None:
    server = DeltaTalk(A1)
    first = server.ask("a")
    server.publish(A2)
    second = server.respond()
    for sent in (first, second):
        assert sent is not None
        answer = server.stream.receive(DeltaRequest(T, nonce=sent.nonce))
        assert answer is not None
        assert answer.response is sent


def test_rejected_content_is_not_sent_again_until_it_changes() -> None:
    server = DeltaTalk(A1)
    sent = server.ask("a")
    assert sent is not None
    answer = server.stream.receive(DeltaRequest(T, nonce=sent.nonce, rejection="bad"))
    assert answer is not None
    assert answer.rejection == "bad"
    assert server.respond() is None
    assert server.stream.ledger.standing_rejection(server.edition.snapshot) == answer
    server.publish(A2)
    assert told(server.respond()) == (A2,)
    assert server.stream.ledger.standing_rejection(server.edition.snapshot) is None


def test_what_came_beside_a_bad_one_is_sent_again_without_it() -> None:
    server = DeltaTalk(A1, B1)
    sent = server.ask("a", "b")
    assert sent is not None
    server.stream.receive(DeltaRequest(T, nonce=sent.nonce, rejection="a: bad"))
    again = server.respond()
    assert told(again) == (B1,)
    assert again is not None
    server.stream.receive(DeltaRequest(T, nonce=again.nonce, rejection="a: bad"))
    assert server.respond() is None, "nobody is named that was sent, so all are blamed"


def test_what_came_beside_a_bad_one_and_changed_since_is_not_sent_twice() -> None:
    server = DeltaTalk(A1, B1)
    sent = server.ask("a", "b")
    assert sent is not None
    server.publish(A1, Resource.of(T, "b", b"2"))
    server.respond()
    server.stream.receive(DeltaRequest(T, nonce=sent.nonce, rejection="a: bad"))
    assert server.respond() is None


def test_a_rejected_heartbeat_brings_nothing_again() -> None:
    server = DeltaTalk(Resource.of(T, "a", b"1", ttl=3), Resource.of(T, "b", b"1", ttl=3))
    server.accept(server.ask("a", "b"))
    beat = server.stream.heartbeat(server.edition, "h")
    assert beat is not None
    server.stream.receive(DeltaRequest(T, nonce=beat.nonce, rejection="a: bad"))
    assert server.respond() is None


def test_a_heartbeat_sends_in_full_what_has_a_lifetime_and_nothing_else() -> None:
    beating = Resource.of(T, "a", b"1", ttl=3)
    server = DeltaTalk(beating, B1)
    server.ask("a", "b")
    heartbeat = server.stream.heartbeat(server.edition, "h")
    assert told(heartbeat) == (beating,)
    assert heartbeat is not None
    assert heartbeat.heartbeat


def test_a_heartbeat_carries_only_what_the_client_was_sent() -> None:
    server = DeltaTalk(Resource.of(T, "a", b"1", ttl=3))
    assert server.stream.heartbeat(server.edition, "h") is None
    server.ask("b")
    assert server.stream.heartbeat(server.edition, "h") is None


def test_a_client_that_reconnects_with_the_present_version_gets_heartbeats() -> None:
    beating = Resource.of(T, "a", b"1", ttl=3)
    server = DeltaTalk(beating)
    assert server.ask("a", holding={"a": beating.version}) is None
    assert told(server.stream.heartbeat(server.edition, "h")) == (beating,)


def test_a_heartbeat_leaves_alone_what_is_due_as_a_change() -> None:
    server = DeltaTalk(Resource.of(T, "a", b"1", ttl=3))
    server.ask("a")
    server.publish(Resource.of(T, "a", b"2", ttl=3))
    assert server.stream.heartbeat(server.edition, "h") is None
    assert [r.body for r in told(server.respond())] == [b"2"]


def test_a_heartbeat_is_not_what_a_publication_waits_for() -> None:
    server = DeltaTalk(Resource.of(T, "a", b"1", ttl=3))
    sent = server.ask("a")
    server.stream.heartbeat(server.edition, "h")
    assert sent is not None
    assert server.stream.ledger.unanswered(server.edition.snapshot) == {sent.nonce}


def test_what_is_unanswered_and_still_said_has_to_be_answered_although_it_was_told_earlier() -> None:
    server = DeltaTalk(A1, B1)
    first = server.ask("a", "b")
    server.publish(A2, B1)
    second = server.respond()
    assert first is not None
    assert second is not None
    ledger = server.stream.ledger
    assert ledger.unanswered(server.edition.snapshot) == {first.nonce, second.nonce}, "b was told by the first alone"
    server.publish(A2)
    third = server.respond()
    assert third is not None
    assert ledger.unanswered(server.edition.snapshot) == {second.nonce, third.nonce}, "of the first nothing is left"
    for sent in (first, second, third):
        server.accept(sent)
    assert ledger.unanswered(server.edition.snapshot) == frozenset()


def test_removals_can_be_held_back_so_that_they_come_last() -> None:
    server = DeltaTalk(A1, B1)
    server.ask("a", "b")
    server.publish(A2)
    additions = server.stream.respond(server.edition, "x", removals=False)
    assert additions is not None
    assert (additions.resources, additions.removed) == ((A2,), ())
    removals = server.stream.respond(server.edition, "y")
    assert removals is not None
    assert (removals.resources, removals.removed) == ((), ("b",))


def test_what_is_to_be_repeated_is_sent_again_if_it_was_sent_before() -> None:
    server = DeltaTalk(A1, B1)
    server.accept(server.ask("a"))
    server.stream.repeat(["a", "b", "missing"])
    assert told(server.respond()) == (A1,)


def test_names_dropped_under_the_star_have_the_same_limit() -> None:
    server = DeltaTalk()
    server.ask("*")
    with pytest.raises(StreamError, match="subscribe to fewer"):
        server.ask(without=tuple(map(str, range(MAX_NAMES + 1))))


def test_more_names_than_the_limit_end_the_stream() -> None:
    with pytest.raises(StreamError, match="subscribe to fewer"):
        DeltaTalk().ask(*map(str, range(MAX_NAMES + 1)))
