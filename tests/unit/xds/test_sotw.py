"""The state-of-the-world protocol, case by case."""

from __future__ import annotations

import pytest

from tests.unit.xds.talks import SotwTalk, T, there, told
from xds.errors import GrpcStatus, StreamError
from xds.messages import SotwRequest
from xds.snapshot import Resource
from xds.subscription import FULL_STATE_TYPES

LISTENER = next(url for url in sorted(FULL_STATE_TYPES) if "Listener" in url)
A1, A2, B1 = Resource.of(T, "a", b"1"), Resource.of(T, "a", b"2"), Resource.of(T, "b", b"1")


def test_a_subscription_is_answered_with_the_resource() -> None:
    assert told(SotwTalk(A1, B1).ask("a")) == (A1,)


def test_a_missing_name_does_not_withhold_the_others() -> None:
    assert told(SotwTalk(A1).ask("missing", "a")) == (A1,)


def test_accepting_sends_nothing_more() -> None:
    server = SotwTalk(A1)
    sent = server.ask("a")
    answer = there(server.accept(sent, "a"))
    assert (answer.response, answer.rejection) == (sent, None)
    assert server.respond() is None


def test_a_publication_without_a_change_to_what_is_wanted_sends_nothing() -> None:
    server = SotwTalk(A1)
    server.accept(server.ask("a"), "a")
    server.publish(Resource.of(T, "a", b"1"), B1)
    assert server.respond() is None


def test_a_rejection_names_the_old_version_and_the_new_nonce() -> None:
    server = SotwTalk(A1)
    server.accept(server.ask("a"), "a")
    server.publish(A2)
    sent = there(server.respond())
    answer = there(server.stream.receive(SotwRequest(T, ("a",), server.version, sent.nonce, "bad")))
    assert (answer.response, answer.rejection) == (sent, "bad")
    assert server.respond() is None, "rejected content is not sent again until it changes"
    server.publish(A1)
    assert told(server.respond()) == (A1,)


def test_a_changed_list_with_the_last_nonce_and_the_old_version_is_not_an_acceptance() -> None:
    server = SotwTalk(A1, B1)
    sent = there(server.ask("a"))
    assert server.stream.receive(SotwRequest(T, ("a", "b"), "", sent.nonce)) is None
    assert told(server.respond()) == (B1,)


def test_a_changed_list_after_the_acceptance_is_not_a_second_one() -> None:
    server = SotwTalk(A1, B1)
    sent = server.ask("a")
    assert server.accept(sent, "a") is not None
    assert server.accept(sent, "a", "b") is None
    assert told(server.respond()) == (B1,)


def test_a_stale_nonce_changes_no_subscription_but_is_a_word_on_its_own_response() -> None:
    server = SotwTalk(A1, B1)
    first = there(server.ask("a"))
    server.publish(A2, B1)
    second = server.respond()
    answer = there(server.stream.receive(SotwRequest(T, ("a", "b"), first.version, first.nonce)))
    assert answer.response is first
    assert server.stream.receive(SotwRequest(T, ("a", "b"), first.version, "unknown")) is None
    assert server.respond() is None
    assert server.accept(second, "a", "b") is not None
    assert told(server.respond()) == (B1,)


def test_a_rejection_that_crosses_a_later_response_is_heard() -> None:
    server = SotwTalk(A1, B1)
    server.accept(server.ask("a", "b"), "a", "b")
    server.publish(A2, B1)
    bad = there(server.respond())
    server.publish(A2, Resource.of(T, "b", b"2"))
    server.respond()
    answer = there(server.stream.receive(SotwRequest(T, ("a", "b"), server.version, bad.nonce, "bad")))
    assert (answer.response, answer.rejection) == (bad, "bad")
    assert server.stream.ledger.standing_rejection(server.edition.snapshot) == answer


def test_what_came_beside_a_bad_one_is_sent_again_without_it_but_for_types_told_in_full() -> None:
    server = SotwTalk(A1, B1)
    sent = there(server.ask("a", "b"))
    server.stream.receive(SotwRequest(T, ("a", "b"), "", sent.nonce, "a: bad"))
    assert told(server.respond()) == (B1,)
    in_full = SotwTalk(Resource.of(LISTENER, "a", b""), Resource.of(LISTENER, "b", b""), type_url=LISTENER)
    sent = there(in_full.ask())
    in_full.stream.receive(SotwRequest(LISTENER, (), "", sent.nonce, "a: bad"))
    assert in_full.respond() is None


def test_a_client_that_passes_over_a_response_answers_it_by_the_next() -> None:
    server = SotwTalk(A1)
    first = there(server.ask("a"))
    server.publish(A2)
    answer = there(server.accept(server.respond(), "a"))
    assert answer.passed_over == (first.nonce,)
    assert server.stream.ledger.unanswered(server.edition.snapshot) == frozenset()


def test_what_was_given_up_and_taken_up_again_under_stale_nonces_is_sent_again() -> None:
    server = SotwTalk(A1, B1)
    first = there(server.ask("a", "b"))
    server.accept(first, "a", "b")
    server.publish(A1, Resource.of(T, "b", b"2"))
    second = server.respond()
    for names in (("b",), ("a", "b")):
        server.stream.receive(SotwRequest(T, names, first.version, first.nonce))
    assert server.respond() is None, "until the client has seen the last response"
    server.accept(second, "a", "b")
    assert told(server.respond()) == (A1,), "the client may have thrown it away"
    assert server.respond() is None


def test_who_comes_back_by_name_to_listeners_that_are_gone_is_told_so() -> None:
    talk = SotwTalk(type_url=LISTENER)
    talk.version = "of an earlier stream"
    assert told(talk.ask("1")) == ()
    assert SotwTalk(type_url=LISTENER).ask("1") is None, "who holds nothing waits"


def test_a_name_dropped_and_taken_up_again_is_sent_again() -> None:
    server = SotwTalk(A1, B1)
    server.accept(server.ask("a", "b"), "a", "b")
    assert server.ask("b") is None
    assert told(server.ask("a", "b")) == (A1,)


def test_a_new_stream_is_sent_everything_whatever_version_it_claims() -> None:
    server = SotwTalk(A1)
    server.version = server.edition.snapshot.version(T)
    assert told(server.ask("a")) == (A1,)


def test_an_empty_first_request_for_listeners_means_all_and_they_come_in_full_each_time() -> None:
    one, two = Resource.of(LISTENER, "1", b""), Resource.of(LISTENER, "2", b"")
    server = SotwTalk(one, type_url=LISTENER)
    server.accept(server.ask())
    server.publish(one, two)
    assert told(server.respond()) == (one, two)
    server.publish(two)
    assert told(server.respond()) == (two,), "what is left out is removed"


def test_after_a_name_was_given_an_empty_list_means_nothing() -> None:
    one = Resource.of(LISTENER, "1", b"")
    server = SotwTalk(one, type_url=LISTENER)
    server.accept(server.ask("1"), "1")
    assert server.ask() is None
    server.publish(Resource.of(LISTENER, "1", b"new"))
    assert server.respond() is None


def test_who_asks_for_everything_learns_that_there_is_nothing() -> None:
    server = SotwTalk(type_url=LISTENER)
    assert told(server.ask()) == ()
    assert server.respond() is None


def test_the_star_subscribes_to_everything_of_any_type() -> None:
    assert told(SotwTalk(A1, B1).ask("*")) == (A1, B1)


def test_a_vanished_resource_of_other_types_is_silence_and_its_return_is_news() -> None:
    server = SotwTalk(A1)
    server.accept(server.ask("a"), "a")
    server.publish()
    assert server.respond() is None
    server.publish(A1)
    assert told(server.respond()) == (A1,)


def test_removals_can_be_held_back_so_that_they_come_last() -> None:
    one, two = Resource.of(LISTENER, "1", b""), Resource.of(LISTENER, "2", b"")
    server = SotwTalk(one, type_url=LISTENER)
    server.accept(server.ask())
    server.publish(two)
    additions = there(server.stream.respond(server.edition, "x", removals=False))
    assert additions.resources == (two, one), "an old one stays until all that is new has been told"
    removals = there(server.stream.respond(server.edition, "y"))
    assert removals.resources == (two,)
    assert additions.version != removals.version, "or accepting the first would look like accepting both"
    assert server.respond() is None


def test_what_is_to_be_repeated_is_sent_again_if_it_was_sent_before() -> None:
    server = SotwTalk(A1, B1)
    server.accept(server.ask("a"), "a")
    server.stream.repeat(["a", "b", "missing"])
    assert told(server.respond()) == (A1,)


def test_a_resource_with_a_lifetime_is_refused_rather_than_served_for_ever() -> None:
    with pytest.raises(StreamError, match="DELTA_GRPC") as raised:
        SotwTalk(Resource.of(T, "a", b"1", ttl=3)).ask("a")
    assert raised.value.status is GrpcStatus.FAILED_PRECONDITION
