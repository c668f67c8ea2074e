"""The fields of a document's model, one by one: what a reference page lists, and how a single value is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from policies.model.policy import PolicySpec
from policies.model.strictness import Exempt, Order, PerKey


@dataclass(frozen=True, slots=True)
class Known:
    """place: as documents name it, from the model on, with `*` for any key of a map and `[]` for any entry of a list.

    owner: the model whose field it is. order: how it is merged, None where that is asked of what is below it, or of
    nothing. below: the model of what is below it.
    """

    place: str
    owner: type[BaseModel]
    name: str
    info: FieldInfo
    order: Order | None
    below: type[BaseModel] | None


def known(model: type[BaseModel], around: str = "") -> Iterator[Known]:
    """Every field in the sequence of its model, each followed by what is below it."""
    for name, info in model.model_fields.items():
        order = next((each for each in info.metadata if hasattr(each, "join")), None)
        below, step = _below(info.annotation)
        place = f"{around}{info.alias or name}"
        yield Known(place, model, name, info, order, below)
        if below is not None:
            yield from known(below, f"{place}{step}.")


def _below(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model in a field's type, and the step that leads to it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    outer = get_origin(annotation)
    step = ".*" if outer in (dict, Mapping) else "[]" if outer is tuple else ""
    for each in get_args(annotation):
        model, further = _below(each)
        if model is not None:
            return model, step + further
    return None, ""


def written(place: str, value: Any) -> str:
    """A value of this place of a policy's spec as YAML on one line, as a document would have it."""
    if isinstance(value, Exempt):
        lists = value.narrowest if value.asked else [(), *value.narrowest]
        return " and within ".join(_line(list(each)) for each in lists)
    return _line(_adapter(place).dump_python(value, mode="json", by_alias=True))


def plain_value(info: FieldInfo, value: Any) -> Any:
    """A value of this field as JSON has it, or YAML: a duration as `10s`."""
    return _adapter_of(info).dump_python(value, mode="json", by_alias=True, warnings=False)


def _adapter_of(info: FieldInfo) -> TypeAdapter[Any]:
    annotated: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    return TypeAdapter(annotated)


def _line(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


@cache
def _adapter(place: str) -> TypeAdapter[Any]:
    """What writes the value of a place that policies state (policies/model/merge.py)."""
    fields = {each.place: each for each in known(PolicySpec)}
    if place in fields:
        return _adapter_of(fields[place].info)
    around, _, last = place.rpartition(".")
    if around in fields and isinstance(fields[around].order, PerKey):
        return TypeAdapter(get_args(fields[around].info.annotation)[1])
    above, _, _ = around.rpartition(".")
    return _adapter(f"{above}.*.{last}")
