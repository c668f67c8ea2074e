"""Merging policies: field by field the stricter value, whoever states it. A lower layer loosens nothing of a floor.

A policy is taken apart into what it states: places in its spec (`layers.files.maxAge`) with their values. What it does
not say is no statement; a place that nobody states has its default. Since every field's order is a join
(policies/model/strictness.py), neither the sequence of the policies nor saying something twice changes the outcome, and
another policy only ever makes what is stated stricter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property, lru_cache
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
    def stated(self) -> Stated:
        return stated(self.policy.spec)

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
    return Merging().of(applying)


class Merging:
    """Merges many selections out of one set of policies.

    Since a join is associative, what the first of several policies come to is worked out once for all selections that
    begin with them: a floor once for the mesh, a namespace's policy once for its workloads.
    """

    def __init__(self) -> None:
        self._nothing = _Together((), {})

    def of(self, applying: Iterable[Applying]) -> Merged:
        """As `merge`. The same policies give the same object."""
        together = self._nothing
        for each in sorted(applying, key=lambda each: each.key):
            together = together.further(each)
        return together.merged


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
    sections: dict[str, list[tuple[str, Any]]] = {}
    for place, statement in stated.items():
        section, _, below = place.partition(".")
        sections.setdefault(section, []).append((below, statement.value))
    given = {_fields(PolicySpec)[each].name: _section(each, tuple(said)) for each, said in sections.items()}
    return _unstated(PolicySpec).model_copy(update=given)


@lru_cache(maxsize=4096)
def _section(name: str, stated: tuple[tuple[str, Any], ...]) -> Any:
    """What stands under this name. Many policies have a section alike, and then it is one object."""
    tree: dict[str, Any] = {}
    for place, value in stated:
        *around, last = f"{name}.{place}".rstrip(".").split(".")
        inner = tree
        for step in around:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return getattr(_put_together(PolicySpec, tree), _fields(PolicySpec)[name].name)


# --- taking apart, and putting together again ---


class _Field(NamedTuple):
    name: str
    order: Order | None
    always: bool
    inner: type[BaseModel] | None
    """The model below: the field's own, or its values' where it is a map."""
    key: Callable[[str], Any]
    """A map's key as its type: layers and signals are enumerations."""


@cache
def _fields(model: type[BaseModel]) -> Mapping[str, _Field]:
    """By the name that documents use. What has neither an order nor fields of its own is merged by nobody."""
    found = {}
    for name, field in model.model_fields.items():
        order = next((each for each in field.metadata if hasattr(each, "join")), None)
        always = any(isinstance(each, Always) for each in field.metadata)
        inner = next((each for each in (field.annotation, *get_args(field.annotation)) if _is_model(each)), None)
        if order is not None or _is_model(field.annotation):
            key = get_args(field.annotation)[0] if isinstance(order, PerKey) else str
            found[field.alias or name] = _Field(name, order, always, inner, key)
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
            given[field.name] = {field.key(key): _value(field, each) for key, each in below.items()}
        elif isinstance(field.order, Bounded):
            first, *others = narrowest(below)
            given[field.name] = first
            bounds += [FileBounds.model_construct({field.name}, **{field.name: each}) for each in others]
        else:
            given[field.name] = _value(field, below)
    if bounds:
        given["within"] = tuple(bounds)
    return _unstated(model).model_copy(update=given)


@cache
def _unstated(model: type[BaseModel]) -> BaseModel:
    """It as it is where nobody states anything of it; copied, which takes a fifth of constructing it."""
    return model()


def _value(field: _Field, below: Any) -> Any:
    return below if field.inner is None or not isinstance(below, dict) else _put_together(field.inner, below)


def narrowest(lists: frozenset[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Lists that bound each other, in a sequence of their own, without those that another one implies."""
    return sorted(each for each in lists if not any({*other} < {*each} for other in lists))


# --- who stated what ---


class _Settled(NamedTuple):
    """What came of one place. said: by whom, in sequence. by: those behind the outcome.

    That is, whose own value it is; where it is nobody's own, all that contributed.
    """

    outcome: Statement
    said: tuple[tuple[Applying, Statement], ...]
    by: tuple[Metadata, ...]
    conflicts: tuple[Conflict, ...] = ()

    def and_also(self, place: str, policy: Applying, statement: Statement) -> _Settled:
        """Raises InvalidConfiguration where neither value is the stricter one."""
        last, before = self.said[-1]
        try:
            value = statement.order.join(self.outcome.value, statement.value)
        except Unordered as error:
            raise InvalidConfiguration(
                f"spec.{place} differs between {self.said[0][0]} and {policy}, and neither value is the stricter one",
                where=policy.at(place),
                mend="Make both alike, give one of them another name, or take one out.",
            ) from error
        said = (*self.said, (policy, statement))
        alone = tuple(each.name for each, own in said if own.value == value)
        differ = last.rank == policy.rank and before.value != statement.value and _ranks(statement)
        found = (*self.conflicts, Conflict(place, last, policy)) if differ else self.conflicts
        return _Settled(Statement(statement.order, value), said, alone or tuple(each.name for each, _ in said), found)


def _ranks(statement: Statement) -> bool:
    """Lists that are added to, or bounded by each other, do not contradict each other."""
    return not isinstance(statement.order, (Bounded, Alike)) and not isinstance(statement.value, tuple)


class _Together:
    """Policies in sequence, and what came of each place that any of them states."""

    def __init__(self, applying: tuple[Applying, ...], settled: Mapping[str, _Settled]) -> None:
        self._applying, self._settled = applying, settled
        self._further: dict[int, _Together] = {}

    def further(self, policy: Applying) -> _Together:
        """With one policy more."""
        known = self._further.get(id(policy))
        if known is None:
            new = {place: self._and_also(place, policy, statement) for place, statement in policy.stated.items()}
            known = self._further[id(policy)] = _Together((*self._applying, policy), {**self._settled, **new})
        return known

    def _and_also(self, place: str, policy: Applying, statement: Statement) -> _Settled:
        settled = self._settled.get(place)
        if settled is None:
            return _Settled(statement, ((policy, statement),), (policy.name,))
        return settled.and_also(place, policy, statement)

    @cached_property
    def merged(self) -> Merged:
        """Raises InvalidConfiguration where the halves do not fit together."""
        spec = _explicit(assembled({place: each.outcome for place, each in self._settled.items()}))
        _whole(spec, self._settled)
        several = len(self._applying) > 1
        origins = {place: each.by for place, each in self._settled.items()} if several else {}
        policy = EffectivePolicy.model_construct(metadata=self._applying[-1].name, spec=spec, origins=origins)
        conflicts = tuple(conflict for each in self._settled.values() for conflict in each.conflicts)
        return Merged(policy, self._applying, conflicts)


_OPERATORS = ["breakGlass.quorum", "breakGlass.operators"]


def _whole(spec: PolicySpec, settled: Mapping[str, _Settled]) -> None:
    rules = [place for place in settled if place.startswith("rules.")]
    for holds, places, mend in (
        (spec.whole, ["interval", "freshness"], "State both in one of them."),
        (spec.bounded, rules, "Take some out."),
        (spec.break_glass.attainable, _OPERATORS, "Name the same keys in all of them."),
    ):
        try:
            holds()
        except ValueError as error:
            parts = [(each, place) for place in places if place in settled for each, _ in settled[place].said]
            names = sorted({str(each) for each, _ in parts})
            where = next((each.at(place) for each, place in parts), "")
            said = f"{error}: merged from {' and '.join(names)}"
            raise InvalidConfiguration(said, where=where or "policy", mend=mend) from error
