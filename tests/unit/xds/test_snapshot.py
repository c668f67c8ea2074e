"""Snapshots are consistent, and versions follow content."""

from __future__ import annotations

import pytest

from xds.errors import DanglingReference, DuplicateResource
from xds.resources.rbac import MAX_REASON, policy_name
from xds.snapshot import Reference, Resource, Snapshot

T = "type.googleapis.com/t"


def test_equal_content_has_an_equal_version() -> None:
    assert Resource.of(T, "a", b"A") == Resource.of(T, "a", b"A")


@pytest.mark.parametrize(
    "other",
    [
        Resource.of(T, "a", b"B"),
        Resource.of(T, "a", b"A", ttl=1),
        Resource.of(T, "b", b"A"),
        Resource.of(T + "u", "a", b"A"),
    ],
)
def test_another_content_lifetime_name_or_type_has_another_version(other: Resource) -> None:
    assert other.version != Resource.of(T, "a", b"A").version


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(DuplicateResource, match=r"'a'.*give each resource its own name"):
        Snapshot.of(Resource.of(T, "a", b"A"), Resource.of(T, "a", b"B"))


def test_the_same_name_in_two_types_is_two_resources() -> None:
    snapshot = Snapshot.of(Resource.of(T, "a", b"A"), Resource.of("u", "a", b"A"))
    assert snapshot.get(T, "a") != snapshot.get("u", "a")


def test_a_reference_to_nothing_is_refused() -> None:
    listener = Resource.of("l", "listener", b"", references=[Reference(T, "secret")])
    with pytest.raises(DanglingReference, match="'listener' refers to 'secret'"):
        Snapshot.of(listener)
    assert Snapshot.of(listener, Resource.of(T, "secret", b"")).get("l", "listener") is listener


def test_what_is_still_referred_to_cannot_be_taken_out() -> None:
    snapshot = Snapshot.of(
        Resource.of("l", "listener", b"", references=[Reference(T, "secret")]), Resource.of(T, "secret", b"")
    )
    with pytest.raises(DanglingReference):
        snapshot.without(Reference(T, "secret"))
    assert snapshot.without(Reference("l", "listener")).get("l", "listener") is None


def test_replacing_leaves_the_original_as_it_was() -> None:
    before = Snapshot.of(Resource.of(T, "a", b"A"), Resource.of(T, "b", b"B"))
    after = before.replacing(Resource.of(T, "a", b"C"))
    assert before.get(T, "a") == Resource.of(T, "a", b"A")
    assert after.get(T, "a") == Resource.of(T, "a", b"C")
    assert after.get(T, "b") is before.get(T, "b")


def test_what_it_is_complete_in_outlives_changes() -> None:
    snapshot = Snapshot.of(Resource.of(T, "a", b"A"), complete=[T])
    assert snapshot.replacing(Resource.of(T, "b", b"B")).complete == {T}
    assert snapshot.without(Reference(T, "a")).complete == {T}
    assert Snapshot.EMPTY.complete == frozenset()


def test_the_version_of_a_type_is_equal_exactly_when_its_resources_are() -> None:
    a, b = Resource.of(T, "a", b"A"), Resource.of(T, "b", b"B")
    assert Snapshot.of(a, b).version(T) == Snapshot.of(b, a).version(T)
    assert Snapshot.of(a).version(T) != Snapshot.of(a, b).version(T)


@pytest.mark.parametrize("ttl", [0, -1])
def test_a_lifetime_that_is_over_at_once_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="over at once"):
        Resource.of(T, "a", b"A", ttl=ttl)


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("plain-reason", "plain-reason"),
        ("with spaces\nand lines", "with-spaces-and-lines"),
        ("brackets]0\x00", "brackets-0-"),
        ("", "unspecified"),
        ("x" * 1000, "x" * MAX_REASON),
    ],
)
def test_a_denial_never_fails_for_its_reason(reason: str, name: str) -> None:
    assert policy_name(reason) == name
