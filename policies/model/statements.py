"""What a policy states: places in its spec (`layers.files.maxAge`) with their values, and a spec out of such again.

What a policy does not say is no statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar, cast, get_args

from pydantic import BaseModel

from policies.model.policy import FileBounds, FileRules, PolicySpec
from policies.model.strictness import Always, Bounded, Exempt, Order, PerKey


class Statement(NamedTuple):
    """One place's value, with the order in which it is merged."""

    order: Order
    value: Any


Stated = Mapping[str, Statement]
"""Place in the spec -> what is stated there."""


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


def by_section(stated: Stated) -> Mapping[str, Stated]:
    """Whatever stands below the same field of the spec, together."""
    sections: dict[str, dict[str, Statement]] = {}
    for place, statement in stated.items():
        sections.setdefault(place.partition(".")[0], {})[place] = statement
    return sections


def assembled(stated: Stated) -> PolicySpec:
    """The spec that states this: `stated` reversed."""
    sections = by_section(stated).items()
    return spec(
        {name: section(name, tuple((place, each.value) for place, each in said.items())) for name, said in sections}
    )


def spec(sections: Mapping[str, Any]) -> PolicySpec:
    """The spec that has these in its fields, by the names that documents use."""
    return _with(PolicySpec, {_fields(PolicySpec)[name].name: value for name, value in sections.items()})


@lru_cache(maxsize=4096)
def section(name: str, said: tuple[tuple[str, Any], ...]) -> Any:
    """What the field of this name is. said: places in it with their values.

    Many policies have a section alike; then it is one object.
    """
    tree: dict[str, Any] = {}
    for place, value in said:
        *around, last = place.split(".")
        inner = tree
        for step in around:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return _value(_fields(PolicySpec)[name], tree[name])


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
        if isinstance(field.order, Bounded):
            asked = field.name in model.model_fields_set
            found[place] = Statement(field.order, Exempt(True, frozenset({value})) if asked else Exempt())
        elif isinstance(field.order, PerKey):
            for key, each in value.items():
                _state(each, f"{place}.{key}", field.order.values, found, defaults=defaults)
        else:
            _state(value, place, field.order, found, defaults=defaults)
    if isinstance(model, FileRules):
        _bounds(model, around, found)


def _state(value: Any, place: str, order: Order | None, found: dict[str, Statement], *, defaults: bool) -> None:
    if order is None:
        _take_apart(value, f"{place}.", found, defaults=defaults)
    else:
        found[place] = Statement(order, value)


def _bounds(rules: FileRules, around: str, found: dict[str, Statement]) -> None:
    """Each list of `within` bounds what is exempt, and exempts nothing itself."""
    for bound in rules.within:
        for alias, field in _fields(FileBounds).items():
            patterns, place = getattr(bound, field.name), f"{around}{alias}"
            if patterns is not None and field.order is not None:
                known = found[place].value if place in found else Exempt()
                bounded = field.order.join(known, Exempt(lists=frozenset({patterns})))
                found[place] = Statement(field.order, bounded)


def _put_together(model: type[BaseModel], tree: Mapping[str, Any]) -> BaseModel:
    """Without validating anew: each value comes out of a valid document."""
    given: dict[str, Any] = {}
    bounds: list[FileBounds] = []
    for alias, below in tree.items():
        field = _fields(model)[alias]
        if isinstance(field.order, Bounded):
            lists = below.narrowest
            if below.asked:
                given[field.name] = lists.pop(0)
            bounds += [FileBounds.model_construct({field.name}, **{field.name: each}) for each in lists]
        else:
            given[field.name] = _value(field, below)
    if bounds:
        given["within"] = tuple(bounds)
    return _with(model, given)


Model = TypeVar("Model", bound=BaseModel)


def _with(model: type[Model], given: Mapping[str, Any]) -> Model:
    """A model that states this. A copy, which takes a fifth of constructing it."""
    nothing = cast(Model, _unstated(model))
    return nothing.model_copy(update=given)


@cache
def _unstated(model: type[BaseModel]) -> BaseModel:
    return model()


def _value(field: _Field, below: Any) -> Any:
    if isinstance(field.order, PerKey):
        return {field.key(key): _inner(field, each) for key, each in below.items()}
    return _inner(field, below)


def _inner(field: _Field, below: Any) -> Any:
    return below if field.inner is None or not isinstance(below, dict) else _put_together(field.inner, below)
