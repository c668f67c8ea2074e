"""Whole histories of what a client wants of one type, as go-control-plane tests its subscriptions.

Each step says what is asked, and what must follow: the names told, or silence.
"""

from __future__ import annotations

import pytest

from tests.unit.xds.talks import DeltaTalk, SotwTalk, T, told_names
from xds.ledger import Response
from xds.snapshot import Resource

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
SILENCE = None


def four(url: str, body: bytes) -> list[Resource]:
    return [Resource.of(url, name, body) for name in "abcd"]


def names(response: Response | None) -> list[str] | None:
    return None if response is None else told_names(response)


def test_a_legacy_wildcard_lasts_until_a_name_is_given_and_does_not_come_back() -> None:
    talk = SotwTalk(*four(CLUSTER, b"1"), type_url=CLUSTER)
    assert names(talk.ask()) == ["a", "b", "c", "d"]
    assert names(talk.ask()) is SILENCE
    assert names(talk.ask("b")) is SILENCE, "it holds that one"
    talk.publish(*four(CLUSTER, b"2"))
    assert names(talk.respond()) == ["b"]
    assert names(talk.ask()) is SILENCE
    talk.publish(*four(CLUSTER, b"3"))
    assert names(talk.respond()) is SILENCE, "it wants nothing now"


@pytest.mark.parametrize("url", [T, CLUSTER])
def test_a_star_stands_beside_names_and_comes_and_goes(url: str) -> None:
    talk = SotwTalk(*four(url, b"1"), type_url=url)
    assert names(talk.ask("*")) == ["a", "b", "c", "d"]
    assert names(talk.ask("*", "a")) is SILENCE
    assert names(talk.ask("*", "b")) is SILENCE
    talk.publish(*four(url, b"2"))
    assert names(talk.respond()) == ["a", "b", "c", "d"]
    assert names(talk.ask("b")) is SILENCE
    talk.publish(*four(url, b"3"))
    assert names(talk.respond()) == ["b"]
    assert names(talk.ask()) is SILENCE
    talk.publish(*four(url, b"4"))
    assert names(talk.respond()) is SILENCE
    assert names(talk.ask("*")) == ["a", "b", "c", "d"]


def test_an_incremental_legacy_wildcard_survives_names_and_ends_by_its_star_alone() -> None:
    before = four(CLUSTER, b"1")
    talk = DeltaTalk(*before, type_url=CLUSTER)
    assert names(talk.ask(holding={"a": before[0].version})) == ["b", "c", "d"]
    assert names(talk.ask()) is SILENCE
    talk.publish(*four(CLUSTER, b"2"))
    assert names(talk.ask("a")) == ["a", "b", "c", "d"]
    assert names(talk.ask(without=("a",))) == ["a"], "it is wanted still, and the client may have dropped it"
    talk.ask("b")
    talk.publish(*four(CLUSTER, b"3"))
    assert names(talk.ask(without=("*",))) == ["b"]


def test_an_incremental_star_comes_and_goes_and_leaves_the_names() -> None:
    talk = DeltaTalk(*four(T, b"1"))
    assert names(talk.ask("a")) == ["a"]
    talk.publish(*four(T, b"2"))
    assert names(talk.ask("*")) == ["a", "b", "c", "d"]
    talk.publish(*four(T, b"3"))
    assert names(talk.ask("b")) == ["a", "b", "c", "d"]
    talk.publish(*four(T, b"4"))
    assert names(talk.ask(without=("*",))) == ["a", "b"]
    assert names(talk.ask(without=("a", "b"))) is SILENCE
    talk.publish(*four(T, b"5"))
    assert names(talk.ask(without=("*",))) is SILENCE, "to give up what one has not does nothing"
    assert names(talk.ask("c")) == ["c"]
    assert names(talk.ask("*")) == ["a", "b", "d"]


def test_names_may_be_given_and_taken_beside_the_star_and_an_absent_one_is_answered_too() -> None:
    talk = DeltaTalk(*four(T, b"1"))
    assert names(talk.ask("*")) == ["a", "b", "c", "d"]
    talk.publish(*four(T, b"2"))
    response = talk.ask("b", "absent")
    assert (names(response), response and response.removed) == (["a", "b", "c", "d"], ("absent",))
    response = talk.ask(without=("b", "absent"))
    assert (names(response), response and response.removed) == (["b"], ("absent",))


def test_one_request_may_give_and_take_names() -> None:
    talk = DeltaTalk(*four(T, b"1"))
    assert names(talk.ask("*", "a")) == ["a", "b", "c", "d"]
    assert names(talk.ask("c", without=("*", "a"))) == ["c"]
    talk.publish(*four(T, b"2"))
    assert names(talk.respond()) == ["c"]
