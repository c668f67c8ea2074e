"""What the incremental protocol tells to whom, case by case."""

from __future__ import annotations

import pytest

from tests.unit.xds.talks import DeltaTalk, T, said, told
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
    assert said(server.ask("a", "missing")) == ((A1,), ())


def test_a_missing_name_alone_is_met_with_silence_until_it_exists() -> None:
    server = DeltaTalk()
    assert server.ask("a") is None
    server.publish(A1)
    assert told(server.respond()) == (A1,)


def test_where_absence_is_final_a_missing_name_is_reported_removed_once_and_sent_when_it_exists() -> None:
    server = DeltaTalk(A1, final=True)
    assert said(server.ask("a", "b")) == ((A1,), ("b",))
    server.publish(A2)
    assert said(server.respond()) == ((A2,), ())
    server.publish(A2, B1)
    assert told(server.respond()) == (B1,)


def test_where_absence_is_final_asking_again_is_answered_again() -> None:
    server = DeltaTalk(final=True)
    for _ in range(2):
        assert said(server.ask("a"))[1] == ("a",)


def test_absence_that_becomes_final_is_told_to_whoever_waits() -> None:
    server = DeltaTalk()
    assert server.ask("a", "b") is None
    server.edition = Edition(Snapshot.of(B1, complete=[T]), 2)
    assert said(server.respond()) == ((B1,), ("a",))


def test_before_the_first_publication_no_absence_is_final() -> None:
    stream = DeltaStream(LISTENER)
    stream.receive(DeltaRequest(LISTENER, ("*", "a")))
    assert stream.respond(Edition(Snapshot.EMPTY, 0), "1") is None


def test_a_name_that_is_dropped_is_not_reported_removed() -> None:
    server = DeltaTalk()
    server.ask("a", "b")
    server.ask(without=("a",))
    server.edition = Edition(Snapshot.of(complete=[T]), 2)
    assert said(server.respond())[1] == ("b",)


def test_a_resource_that_vanishes_is_reported_removed_once() -> None:
    server = DeltaTalk(A1)
    server.ask("a")
    server.publish()
    assert said(server.respond()) == ((), ("a",))
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
    assert said(DeltaTalk(A2).ask("a", "b", holding={"a": A1.version, "b": B1.version})) == ((A2,), ("b",))


def test_after_a_reconnect_a_declared_name_that_is_not_wanted_is_ignored() -> None:
    assert said(DeltaTalk(A1).ask("a", holding={"b": "x"}))[1] == ()


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
    assert said(server.ask(without=("a", "missing"))) == ((A1,), ("missing",))


def test_who_asks_for_everything_later_learns_that_there_is_nothing() -> None:
    server = DeltaTalk()
    assert server.ask("a") is None
    assert said(server.ask("*")) == ((), ("a",))
    assert server.ask(without=("*",)) is None
    assert told(server.ask("*")) == ()


def test_a_star_taken_up_again_while_a_response_is_under_way_is_told_what_of_that_is_gone() -> None:
    server = DeltaTalk(A1, B1)
    server.ask("*")  # the client has not read the answer when it changes its mind twice
    server.ask(without=("*",))
    server.publish(B1)
    assert said(server.ask("*")) == ((B1,), ("a",))


def test_removals_can_be_held_back_so_that_they_come_last() -> None:
    server = DeltaTalk(A1, B1)
    server.ask("a", "b")
    server.publish(A2)
    assert said(server.stream.respond(server.edition, "x", removals=False)) == ((A2,), ())
    assert said(server.stream.respond(server.edition, "y")) == ((), ("b",))


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
