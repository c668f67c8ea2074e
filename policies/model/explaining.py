"""Where each value that rules a workload comes from, and whose value it prevailed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from policies.model.fields import written
from policies.model.governing import Governing
from policies.model.merge import Applying, Conflict
from policies.model.policy import AttestationPolicy
from policies.model.statements import Statement, stated
from policies.model.strictness import Exempt


@dataclass(frozen=True, slots=True)
class Said:
    """What one policy states. policy: its qualified name. at: file, line and column. value: YAML on one line."""

    policy: str
    at: str
    value: str


@dataclass(frozen=True, slots=True)
class Value:
    """One place of the spec. value: what is in force. by: those whose value that is, or whose values together are it.

    overruled: the others that state the place. Nobody at all: it is a default.
    """

    place: str
    value: str
    by: tuple[Said, ...]
    overruled: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """All that rules one registration. policies: those that apply, the furthest-reaching first.

    conflicts: those of equal rank that differ.
    """

    registration: str
    spiffe_id: str
    policies: tuple[str, ...]
    values: tuple[Value, ...]
    conflicts: tuple[str, ...]


def explained(governing: Governing, *, folders: bool = False) -> Explained:
    """folders: tell files with the folders they are in."""
    return Explained(
        registration=governing.registration.metadata.qualified,
        spiffe_id=governing.registration.spec.spiffe_id,
        policies=tuple(each.policy.metadata.qualified for each in governing.applying),
        values=tuple(_values(governing.policy, governing.applying, folders=folders)),
        conflicts=tuple(_conflict(each) for each in governing.conflicts),
    )


def _conflict(conflict: Conflict) -> str:
    one, other = conflict.one.policy.metadata.qualified, conflict.other.policy.metadata.qualified
    return f"{conflict.place}: {one} and {other} differ at equal rank; the stricter value holds"


def _values(policy: AttestationPolicy, applying: Sequence[Applying], *, folders: bool) -> Iterator[Value]:
    everything = [(each, stated(each.policy.spec)) for each in applying]
    for place, statement in stated(policy.spec, defaults=True).items():
        said = [(each, own[place]) for each, own in everything if place in own]
        alone = [each for each, own in said if _alike(own, statement)]
        behind = alone or [each for each, _ in said]
        told = {
            each.key: Said(each.policy.metadata.qualified, _at(each, place, folders=folders), written(place, own.value))
            for each, own in said
        }
        by = tuple(told.pop(each.key) for each in behind)
        yield Value(place, written(place, statement.value), by, tuple(told.values()))


def _alike(one: Statement, other: Statement) -> bool:
    """A list of what is asked for, or allowed, has no sequence; of lists that bound each other the narrowest count."""
    if isinstance(one.value, tuple) and isinstance(other.value, tuple):
        return {*one.value} == {*other.value}
    if isinstance(one.value, Exempt) and isinstance(other.value, Exempt):
        return one.value.asked == other.value.asked and one.value.narrowest == other.value.narrowest
    return bool(one.value == other.value)


def _at(applying: Applying, place: str, *, folders: bool) -> str:
    at = applying.at(place)
    return at if folders else Path(at).name
