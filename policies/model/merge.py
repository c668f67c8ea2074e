"""Merging policies: field by field the stricter value, whoever states it. A lower layer loosens nothing of a floor.

A policy is taken apart into what it states (policies/model/statements.py); a place that nobody states has its default.
Since every field's order is a join (policies/model/strictness.py), neither the sequence of the policies nor saying
something twice changes the outcome, and another policy only ever makes what is stated stricter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

from attestation.errors import InvalidConfiguration
from policies.model.metadata import Metadata
from policies.model.origin import Origin
from policies.model.places import rule, spelled
from policies.model.policy import DEFAULT_LAYERS, AttestationPolicy, EffectivePolicy, PolicySpec
from policies.model.statements import by_section, section, spec, stated
from policies.model.strictness import Alike, Bounded, Order, Unordered


class Rank(IntEnum):
    """How far a policy reaches: every namespace (in the root namespace), its own, or what its selector names."""

    MESH = 0
    NAMESPACE = 1
    WORKLOAD = 2


@dataclass(frozen=True)
class Applying:
    """A policy that applies to a workload. origin: where it was read, None for what was put together in memory."""

    policy: AttestationPolicy
    rank: Rank
    origin: Origin | None = None

    @cached_property
    def key(self) -> tuple[int, str, str]:
        meta = self.policy.metadata
        return self.rank, meta.namespace, meta.name

    @cached_property
    def name(self) -> Metadata:
        """What others call it by, without its labels."""
        return Metadata(name=self.policy.metadata.name, namespace=self.policy.metadata.namespace)

    @cached_property
    def alone(self) -> tuple[Metadata]:
        """Its name, where nobody else is named."""
        return (self.name,)

    @cached_property
    def said(self) -> Mapping[str, Mapping[str, Said]]:
        """Section of the spec -> place -> what it states there."""
        sections = by_section(stated(self.policy.spec)).items()
        return {name: {place: Said(self, *each) for place, each in places.items()} for name, places in sections}

    def at(self, place: str) -> str:
        """Where this place of its spec is written: `policies/web.yaml:12:3`. Empty where nobody knows."""
        return self.origin.at(rule(self.policy, spelled(place))) if self.origin else ""

    def __str__(self) -> str:
        name = f"{self.policy.kind}/{self.policy.metadata.qualified}"
        return f"{name} ({self.origin})" if self.origin else name


class Said(NamedTuple):
    """What a policy states of one place. order: in which that place is merged."""

    policy: Applying
    order: Order
    value: Any


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two policies of one rank that state different values; the stricter one holds."""

    place: str
    one: Applying
    other: Applying

    def __str__(self) -> str:
        return f"spec.{self.place}: {self.one} and {self.other} differ at equal rank; the stricter value holds"


@dataclass(frozen=True, slots=True)
class Merged:
    """What rules a workload, and what an operator should know of how it came about."""

    policy: EffectivePolicy
    applying: tuple[Applying, ...]
    conflicts: tuple[Conflict, ...]


def merge(applying: Iterable[Applying]) -> Merged:
    """One or more policies, as one. Raises InvalidConfiguration where they cannot be reconciled, naming both."""
    return Merging().of(applying)


class Merging:
    """Merges many selections out of one set of policies.

    Since a join is associative, what the first of several policies come to is worked out once for all selections that
    begin with them: a floor once for the mesh, a namespace's policy once for its workloads.
    """

    def __init__(self) -> None:
        self._shared: dict[tuple[int, ...], _Together] = {(): _Together((), {})}
        self._merged: dict[tuple[int, ...], Merged] = {}

    def of(self, applying: Iterable[Applying]) -> Merged:
        """As `merge`. The same policies give the same object."""
        ordered = sorted(applying, key=attrgetter("key"))
        key = tuple(map(id, ordered))
        if key not in self._merged:
            self._merged[key] = self._together(ordered[:-1], key[:-1]).and_also(ordered[-1]).merged()
        return self._merged[key]

    def _together(self, ordered: Sequence[Applying], key: tuple[int, ...]) -> _Together:
        """Kept for others that begin with just these."""
        known = len(key)
        while key[:known] not in self._shared:
            known -= 1
        for number in range(known, len(key)):
            self._shared[key[: number + 1]] = self._shared[key[:number]].and_also(ordered[number])
        return self._shared[key]


class _Together(NamedTuple):
    """Policies in sequence, and what came of each section of the spec that any of them states."""

    applying: tuple[Applying, ...]
    sections: Mapping[str, _Section]

    def and_also(self, policy: Applying) -> _Together:
        """With one policy more. What it says nothing of is shared."""
        new = {name: _Section.of(name, self.sections.get(name), said) for name, said in policy.said.items()}
        return _Together((*self.applying, policy), {**self.sections, **new})

    def merged(self) -> Merged:
        """Raises InvalidConfiguration where the halves do not fit together."""
        values = {name: section.value for name, section in self.sections.items()}
        values["layers"] = {**DEFAULT_LAYERS, **values.get("layers", {})}  # a reader need not know our defaults
        merged = spec(values)
        _whole(merged, self.sections)
        settled = [each for section in self.sections.values() for each in section.places.items()]
        origins = {place: each.by for place, each in settled} if len(self.applying) > 1 else {}
        conflicts = tuple([conflict for _, each in settled for conflict in each.conflicts])
        policy = EffectivePolicy.model_construct(metadata=self.applying[-1].name, spec=merged, origins=origins)
        return Merged(policy, self.applying, conflicts)


class _Section(NamedTuple):
    """What came of the places of one section. value: what the field of the spec is then."""

    places: Mapping[str, _Settled]
    value: Any

    @classmethod
    def of(cls, name: str, before: _Section | None, said: Mapping[str, Said]) -> _Section:
        """before: without what is said now."""
        places = dict(before.places) if before else {}
        for place, each in said.items():
            known = places.get(place)
            places[place] = known.and_also(place, each) if known else _Settled(each.value, (each,), each.policy.alone)
        return cls(places, section(name, tuple([(place, each.value) for place, each in places.items()])))


class _Settled(NamedTuple):
    """What came of one place. said: in sequence. by: those behind the value.

    That is, who said just that; where nobody did, all that contributed.
    """

    value: Any
    said: tuple[Said, ...]
    by: tuple[Metadata, ...]
    conflicts: tuple[Conflict, ...] = ()

    def and_also(self, place: str, new: Said) -> _Settled:
        """Raises InvalidConfiguration where neither value is the stricter one."""
        try:
            value = new.order.join(self.value, new.value)
        except Unordered as error:
            raise InvalidConfiguration(
                f"spec.{place} differs between {self.said[0].policy} and {new.policy}, and {error.why}",
                where=new.policy.at(place),
                mend=error.mend,
            ) from error
        said = (*self.said, new)
        behind = [each.policy for each in said if each.value == value] or [each.policy for each in said]
        by = behind[0].alone if len(behind) == 1 else tuple([each.name for each in behind])
        last, conflicts = self.said[-1], self.conflicts
        if last.policy.rank is new.policy.rank and last.value != new.value and _contradicts(last):
            conflicts = (*conflicts, Conflict(place, last.policy, new.policy))
        return _Settled(value, said, by, conflicts)


def _contradicts(said: Said) -> bool:
    """Lists that are added to, or bounded by each other, do not contradict each other."""
    return not isinstance(said.order, (Bounded, Alike)) and not isinstance(said.value, tuple)


class Incomplete(InvalidConfiguration):
    """Something that nobody states does not fit, as it is by default: one policy more may state it."""


def _whole(merged: PolicySpec, sections: Mapping[str, _Section]) -> None:
    for holds, places, mend in (
        (merged.whole, [_INTERVAL, "freshness"], "State both in one of them."),
        (merged.bounded, ["rules"], "Take some out."),
        (merged.files.bounded, ["files"], "Say it in fewer, wider patterns."),
        (merged.egress.bounded, ["egress"], "Say it in fewer, wider blocks."),
        (merged.break_glass.attainable, ["breakGlass.quorum", "breakGlass.operators"], _SAME_KEYS),
    ):
        try:
            holds()
        except ValueError as error:
            parts = list(_parts(sections, places))
            names = sorted({str(each) for each, _ in parts})
            where = next((each.at(place) for each, place in parts), "")
            said = f"{error}: merged from {' and '.join(names)}"
            kind = Incomplete if _INTERVAL in places and _INTERVAL not in sections else InvalidConfiguration
            raise kind(said, where=where or "policy", mend=mend) from error


_INTERVAL = "interval"
_SAME_KEYS = "Name the same keys in all of them."


def _parts(sections: Mapping[str, _Section], places: Iterable[str]) -> Iterator[tuple[Applying, str]]:
    """Who states these places, or what is below them."""
    for place in places:
        around = sections.get(place.partition(".")[0])
        for each, settled in around.places.items() if around else ():
            if each == place or each.startswith(f"{place}."):
                yield from ((said.policy, each) for said in settled.said)
