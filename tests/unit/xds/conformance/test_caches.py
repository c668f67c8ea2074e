"""What go-control-plane and java-control-plane test of their caches: what a change of resources says to whom.

Their caches are our snapshots; a watch of theirs is a stream of ours. For each type both kinds of it are played: full
state (clusters, listeners), where a response lists all that is wanted, and the rest.
"""

from __future__ import annotations

import pytest

from tests.unit.xds.conformance.test_subscriptions import CLUSTER, SILENCE, names
from tests.unit.xds.talks import DeltaTalk, SotwTalk, T, there, told
from xds.delta import DeltaStream
from xds.ledger import Edition
from xds.messages import DeltaRequest
from xds.snapshot import Resource, Snapshot

both_kinds = pytest.mark.parametrize("url", [T, CLUSTER])


def made(url: str, **bodies: bytes) -> list[Resource]:
    return [Resource.of(url, name, body) for name, body in bodies.items()]


def watch(url: str, *wanted: str, **bodies: bytes) -> SotwTalk:
    """A state-of-the-world client that has been told all that it wants."""
    talk = SotwTalk(*made(url, **bodies), type_url=url)
    talk.ask(*wanted)
    return talk


def test_who_asks_before_the_first_publication_is_answered_by_it() -> None:
    stream = DeltaStream(T)
    stream.receive(DeltaRequest(T, ("a",)))
    assert stream.respond(Edition(Snapshot.EMPTY, 0), "1") is None
    (a,) = made(T, a=b"1")
    assert told(stream.respond(Edition(Snapshot.of(a), 1), "2")) == (a,)


def test_what_is_held_from_a_time_before_the_first_publication_is_called_gone() -> None:
    # Their caches keep silent here. A server that has nothing to vouch for must not leave Envoy with what it was given.
    stream = DeltaStream(T)
    stream.receive(DeltaRequest(T, ("a",), (), {"a": "1"}))
    response = there(stream.respond(Edition(Snapshot.EMPTY, 0), "1"))
    assert response.removed == ("a",)


@both_kinds
def test_a_change_is_told_to_those_who_want_it(url: str) -> None:
    a, b, everything = (watch(url, *wanted, a=b"1", b=b"1") for wanted in (["a"], ["b"], ["*"]))
    for talk in (a, b, everything):
        talk.publish(*made(url, a=b"2", b=b"1"))
    assert names(a.respond()) == ["a"]
    assert names(b.respond()) is SILENCE
    assert names(everything.respond()) == (["a", "b"] if url == CLUSTER else ["a"])


@both_kinds
def test_the_same_content_again_is_told_to_nobody(url: str) -> None:
    for talk in (watch(url, "a", a=b"1", b=b"1"), watch(url, "*", a=b"1", b=b"1")):
        talk.publish(*made(url, b=b"1", a=b"1"))
        assert names(talk.respond()) is SILENCE


@both_kinds
def test_a_name_that_is_not_there_brings_silence_until_it_is(url: str) -> None:
    talk = watch(url, "d", a=b"1")
    assert names(talk.respond()) is SILENCE
    talk.publish(*made(url, a=b"1", d=b"1"))
    assert names(talk.respond()) == ["d"]


@both_kinds
def test_a_resource_not_asked_for_before_comes_when_it_is_though_the_version_is_the_same(url: str) -> None:
    talk = watch(url, "a", a=b"1", b=b"1")
    assert names(talk.ask("a", "b")) == (["a", "b"] if url == CLUSTER else ["b"])
    assert names(talk.ask("b", "a")) is SILENCE, "the same names in another order"
    assert names(talk.ask("a", "b", "missing")) is SILENCE


def test_a_deleted_resource_is_silence_but_for_types_told_in_full() -> None:
    for wanted in (["a"], ["*"]):
        talk = watch(T, *wanted, a=b"1", b=b"1")
        talk.publish(*made(T, b=b"1"))
        assert names(talk.respond()) is SILENCE
        in_full = watch(CLUSTER, *wanted, a=b"1", b=b"1")
        in_full.publish(*made(CLUSTER, b=b"1"))
        assert names(in_full.respond()) == (["b"] if wanted == ["*"] else [])


def test_all_resources_gone_is_told_incrementally_and_in_full() -> None:
    delta = DeltaTalk(*made(T, a=b"1", b=b"1"))
    delta.ask("*")
    delta.publish()
    response = there(delta.respond())
    assert (response.resources, set(response.removed)) == ((), {"a", "b"})
    in_full = watch(CLUSTER, a=b"1", b=b"1")
    in_full.publish()
    assert names(in_full.respond()) == []


@both_kinds
def test_several_clients_of_a_type_each_follow_their_own_names(url: str) -> None:
    first = {"a": b"1", "b": b"1", "c": b"1"}
    everything, star, pair, later = (watch(url, *wanted, **first) for wanted in (["*"], ["*"], ["a", "b"], ["d"]))
    full = url == CLUSTER

    def publish(**bodies: bytes) -> list[list[str] | None]:
        for talk in (everything, star, pair, later):
            talk.publish(*made(url, **bodies))
        return [names(talk.respond()) for talk in (everything, star, pair, later)]

    wanted = ["b", "c", "d"] if full else ["b", "d"]
    assert publish(b=b"2", c=b"1", d=b"1") == [wanted, wanted, ["b"], ["d"]]
    assert names(star.ask("a", "c", "d")) is SILENCE, "no star any more, and nothing new"
    assert names(later.ask("c", "d")) == (["c", "d"] if full else ["c"])
    wanted = ["b", "c", "d", "e"] if full else ["e"]
    assert publish(b=b"2", c=b"1", d=b"1", e=b"1") == [wanted, SILENCE, SILENCE, SILENCE]
    assert names(star.ask("a", "d")) is SILENCE
    assert names(pair.ask("*")) == (["b", "c", "d", "e"] if full else ["c", "d", "e"])
    gone = publish(b=b"2", d=b"1", e=b"1")
    assert gone == ([["b", "d", "e"], SILENCE, ["b", "d", "e"], ["d"]] if full else [SILENCE] * 4)
    every = ["a", "b", "d", "e"] if full else ["a", "b"]
    back = publish(a=b"1", b=b"3", d=b"1", e=b"1")
    assert back == [every, ["a", "d"] if full else ["a"], every, SILENCE]


def test_one_change_may_add_replace_and_delete() -> None:
    delta = DeltaTalk(*made(T, a=b"1", b=b"1", c=b"1"))
    delta.ask("a", "b", "d")
    delta.publish(*made(T, b=b"2", c=b"2", d=b"1"))
    response = there(delta.respond())
    assert (names(response), response.removed) == (["b", "d"], ("a",))


def test_incremental_versions_are_those_of_the_content() -> None:
    a, b = made(T, a=b"1", b=b"1")
    delta = DeltaTalk(a, b)
    assert names(delta.ask("a", "b", holding={"a": a.version, "b": "another"})) == ["b"]
    delta.publish(*made(T, a=b"2", b=b"1"))
    assert names(delta.respond()) == ["a"]
    assert made(T, a=b"2")[0].version != a.version


def test_a_star_with_versions_held_is_told_the_rest_and_what_is_gone() -> None:
    a, b = made(T, a=b"1", b=b"1")
    response = there(DeltaTalk(a, b).ask("*", holding={"a": a.version, "gone": "1"}))
    assert (names(response), response.removed) == (["b"], ("gone",))


def test_a_star_with_all_versions_held_is_answered_all_the_same() -> None:
    (a,) = made(T, a=b"1")
    assert names(DeltaTalk(a).ask("*", holding={"a": a.version})) == []


def test_an_old_stream_s_version_is_not_believed_on_a_new_one() -> None:
    talk = SotwTalk(*made(CLUSTER, a=b"1"), type_url=CLUSTER)
    talk.version = talk.edition.snapshot.version(CLUSTER)
    assert names(talk.ask()) == ["a"]


def test_both_protocols_follow_the_same_change() -> None:
    before = made(T, a=b"1", b=b"1")
    sotw = watch(T, "a", "b", a=b"1", b=b"1")
    delta = DeltaTalk(*before)
    assert delta.ask("a", "b", holding={r.name: r.version for r in before}) is SILENCE
    for talk in (sotw, delta):
        talk.publish(*made(T, a=b"2"))
    response = there(delta.respond())
    assert (names(sotw.respond()), names(response), response.removed) == (["a"], ["a"], ("b",))


def test_only_what_has_a_lifetime_is_prolonged_and_in_full() -> None:
    mortal = Resource.of(T, "mortal", b"1", ttl=1)
    delta = DeltaTalk(mortal, *made(T, immortal=b"1"))
    delta.accept(delta.ask("*"))
    for _ in range(2):
        beat = delta.stream.heartbeat(delta.edition, "beat")
        assert told(beat) == (mortal,)
    immortal = DeltaTalk(*made(T, immortal=b"1"))
    immortal.ask("*")
    assert immortal.stream.heartbeat(immortal.edition, "beat") is SILENCE


def test_before_the_first_publication_there_is_nothing_to_prolong() -> None:
    stream = DeltaStream(T)
    stream.receive(DeltaRequest(T, ("a",), (), {"a": "1"}))
    assert stream.heartbeat(Edition(Snapshot.EMPTY, 0), "beat") is SILENCE
    (a,) = made(T, a=b"1")
    assert told(stream.respond(Edition(Snapshot.of(a), 1), "1")) == (a,)


def test_a_snapshot_gives_its_resources_and_versions_by_type() -> None:
    (a,) = made(T, a=b"1")
    snapshot = Snapshot.of(a, *made(CLUSTER, a=b"1", b=b"1"))
    assert (dict(snapshot.table(T)), snapshot.get(T, "a"), snapshot.get(T, "b")) == ({"a": a}, a, None)
    assert set(snapshot.table(CLUSTER)) == {"a", "b"}
    assert (dict(snapshot.table("")), snapshot.version(""), snapshot.version("unknown")) == ({}, "", "")
    assert snapshot.version(T) != snapshot.version(CLUSTER)
