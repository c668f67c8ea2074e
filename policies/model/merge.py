"""Merging policies: field by field the stricter value, whoever states it. A lower layer loosens nothing of a floor.

A policy is taken apart into what it states: places in its spec (`layers.files.maxAge`) with their values. What it does
not say is no statement; a place that nobody states has its default. Since every field's order is a join
(policies/model/strictness.py), neither the sequence of the policies nor saying something twice changes the outcome, and
another policy only ever makes what is stated stricter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from attestation.errors import InvalidConfiguration
from policies.model.metadata import Metadata
from policies.model.origin import Origin
from policies.model.places import rule, spelled
from policies.model.policy import DEFAULT_LAYERS, AttestationPolicy, EffectivePolicy, FileBounds, FileRules, PolicySpec
from policies.model.strictness import Alike, Always, Bounded, Order, PerKey, Unordered


class Rank(IntEnum):
    """How far a policy reaches: every namespace (in the root namespace), its own, or what its selector names."""

    MESH = 0
    NAMESPACE = 1
    WORKLOAD = 2


@dataclass(frozen=True, slots=True)
class Applying:
    """A policy that applies to a workload. origin: where it was read, None for what was put together in memory."""

    policy: AttestationPolicy
    rank: Rank
    origin: Origin | None = None

    @property
    def key(self) -> tuple[int, str, str]:
        meta = self.policy.metadata
        return self.rank, meta.namespace, meta.name

    def at(self, place: str) -> str:
        """Where this place of its spec is written: `policies/web.yaml:12:3`. Empty where nobody knows."""
        return self.origin.at(rule(self.policy, spelled(place))) if self.origin else ""

    def __str__(self) -> str:
        name = f"{self.policy.kind}/{self.policy.metadata.qualified}"
        return f"{name} ({self.origin})" if self.origin else name


class Statement(NamedTuple):
    """One place's value, with the order in which it is merged."""

    order: Order
    value: Any


Stated = Mapping[str, Statement]
"""Place in the spec -> what is stated there."""


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
    ordered = tuple(sorted(applying, key=lambda each: each.key))
    every = [(each, stated(each.policy.spec)) for each in ordered]
    by_place: dict[str, list[tuple[Applying, Statement]]] = defaultdict(list)
    for each, statements in every:
        for place, statement in statements.items():
            by_place[place].append((each, statement))
    strictest = {place: _strictest(place, said) for place, said in by_place.items()}
    spec = _explicit(assembled(strictest))
    _whole(spec, by_place)
    policy = EffectivePolicy.model_construct(
        metadata=_name(ordered[-1].policy.metadata), spec=spec, origins=_origins(strictest, by_place, ordered)
    )
    conflicts = tuple(conflict for place, said in by_place.items() for conflict in _conflicts(place, said))
    return Merged(policy, ordered, conflicts)


def _explicit(spec: PolicySpec) -> PolicySpec:
    """With the layers that nobody names written out: whoever reads it need not know the defaults of its writer."""
    return spec.model_copy(update={"layers": {**DEFAULT_LAYERS, **spec.layers}})


def joined(one: Stated, other: Stated) -> Stated:
    """Both, stricter place by place. Raises Unordered where two values have no order."""
    result = dict(one)
    for place, statement in other.items():
        known = result.get(place)
        value = statement.value if known is None else statement.order.join(known.value, statement.value)
        result[place] = Statement(statement.order, value)
    return result


def stated(spec: PolicySpec, *, defaults: bool = False) -> Stated:
    """Everything that this spec says itself. defaults: and everything that it leaves unsaid, as it is meant."""
    found: dict[str, Statement] = {}
    _take_apart(spec, "", found, defaults=defaults)
    return found


def assembled(stated: Stated) -> PolicySpec:
    """The spec that states this: `stated` reversed."""
    tree: dict[str, Any] = {}
    for place, statement in stated.items():
        *around, last = place.split(".")
        inner = tree
        for step in around:
            inner = inner.setdefault(step, {})
        inner[last] = statement.value
    built = _put_together(PolicySpec, tree)
    assert isinstance(built, PolicySpec)  # noqa: S101 - it was asked for
    return built


# --- taking apart, and putting together again ---


class _Field(NamedTuple):
    name: str
    order: Order | None
    always: bool
    inner: type[BaseModel] | None
    """The model below: the field's own, or its values' where it is a map."""


@cache
def _fields(model: type[BaseModel]) -> Mapping[str, _Field]:
    """By the name that documents use. What has neither an order nor fields of its own is merged by nobody."""
    found = {}
    for name, field in model.model_fields.items():
        order = next((each for each in field.metadata if hasattr(each, "join")), None)
        always = any(isinstance(each, Always) for each in field.metadata)
        inner = next((each for each in (field.annotation, *get_args(field.annotation)) if _is_model(each)), None)
        if order is not None or _is_model(field.annotation):
            found[field.alias or name] = _Field(name, order, always, inner)
    return found


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _take_apart(model: BaseModel, around: str, found: dict[str, Statement], *, defaults: bool) -> None:
    for alias, field in _fields(type(model)).items():
        if not (defaults or field.always or field.name in model.model_fields_set):
            continue
        value, place = getattr(model, field.name), f"{around}{alias}"
        if isinstance(field.order, PerKey):
            for key, each in value.items():
                _state(each, f"{place}.{key}", field.order.values, found, defaults=defaults)
        else:
            _state(value, place, field.order, found, defaults=defaults)
    if isinstance(model, FileRules):
        _bounds(model, around, found)


def _state(value: Any, place: str, order: Order | None, found: dict[str, Statement], *, defaults: bool) -> None:
    if order is None:
        _take_apart(value, f"{place}.", found, defaults=defaults)
    elif isinstance(order, Bounded):
        found[place] = Statement(order, frozenset({value}))
    else:
        found[place] = Statement(order, value)


def _bounds(rules: FileRules, around: str, found: dict[str, Statement]) -> None:
    """`within` states each of its lists once more."""
    for bound in rules.within:
        inner: dict[str, Statement] = {}
        _take_apart(bound, around, inner, defaults=False)
        for place, statement in inner.items():
            if statement.value != frozenset({None}):
                known = found.get(place)
                value = statement.value if known is None else statement.order.join(known.value, statement.value)
                found[place] = Statement(statement.order, value)


def _put_together(model: type[BaseModel], tree: Mapping[str, Any]) -> BaseModel:
    """Without validating anew: each value comes out of a valid document."""
    given: dict[str, Any] = {}
    bounds: list[FileBounds] = []
    for alias, below in tree.items():
        field = _fields(model)[alias]
        if isinstance(field.order, PerKey):
            given[field.name] = {_key(model, field.name, key): _value(field, each) for key, each in below.items()}
        elif isinstance(field.order, Bounded):
            first, *others = narrowest(below)
            given[field.name] = first
            bounds += [FileBounds.model_construct({field.name}, **{field.name: each}) for each in others]
        else:
            given[field.name] = _value(field, below)
    if bounds:
        given["within"] = tuple(bounds)
    return model.model_construct(set(given), **given)


def _value(field: _Field, below: Any) -> Any:
    return below if field.inner is None or not isinstance(below, dict) else _put_together(field.inner, below)


def _key(model: type[BaseModel], name: str, key: str) -> Any:
    """A map's key as its type: layers and signals are enumerations."""
    kind = get_args(model.model_fields[name].annotation)[0]
    return kind(key)


def narrowest(lists: frozenset[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Lists that bound each other, in a sequence of their own, without those that another one implies."""
    return sorted(each for each in lists if not any({*other} < {*each} for other in lists))


# --- who stated what ---


def _strictest(place: str, said: Sequence[tuple[Applying, Statement]]) -> Statement:
    (first, (order, value)), *others = said
    for each, statement in others:
        try:
            value = order.join(value, statement.value)
        except Unordered as error:
            raise InvalidConfiguration(
                f"spec.{place} differs between {first} and {each}, and neither value is the stricter one",
                where=each.at(place),
                mend="Make both alike, give one of them another name, or take one out.",
            ) from error
    return Statement(order, value)


def _origins(
    strictest: Stated, by_place: Mapping[str, Sequence[tuple[Applying, Statement]]], applying: Sequence[Applying]
) -> dict[str, tuple[Metadata, ...]]:
    """Those whose own value is the outcome; where it is nobody's own, all that contributed. Of one policy nothing."""
    found = {}
    for place, statement in strictest.items() if len(applying) > 1 else ():
        said = by_place[place]
        alone = [each for each, own in said if own.value == statement.value]
        found[place] = tuple(_name(each.policy.metadata) for each in (alone or [each for each, _ in said]))
    return found


def _name(metadata: Metadata) -> Metadata:
    return Metadata(name=metadata.name, namespace=metadata.namespace)


def _conflicts(place: str, said: Sequence[tuple[Applying, Statement]]) -> list[Conflict]:
    """Lists that are added to, or bounded by each other, do not contradict each other."""
    found = []
    for (one, said_one), (other, said_other) in pairwise(said):
        ordered = not isinstance(said_one.order, (Bounded, Alike)) and not isinstance(said_one.value, tuple)
        if ordered and one.rank == other.rank and said_one.value != said_other.value:
            found.append(Conflict(place, one, other))
    return found


_OPERATORS = ["breakGlass.quorum", "breakGlass.operators"]


def _whole(spec: PolicySpec, by_place: Mapping[str, Sequence[tuple[Applying, Statement]]]) -> None:
    rules = [place for place in by_place if place.startswith("rules.")]
    for holds, places, mend in (
        (spec.whole, ["interval", "freshness"], "State both in one of them."),
        (spec.bounded, rules, "Take some out."),
        (spec.break_glass.attainable, _OPERATORS, "Name the same keys in all of them."),
    ):
        try:
            holds()
        except ValueError as error:
            parts = [(each, place) for place in places for each, _ in by_place.get(place, ())]
            names = sorted({str(each) for each, _ in parts})
            where = next((each.at(place) for each, place in parts), "")
            said = f"{error}: merged from {' and '.join(names)}"
            raise InvalidConfiguration(said, where=where or "policy", mend=mend) from error
