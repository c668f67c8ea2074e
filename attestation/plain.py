"""Our frozen dataclasses as plain values (dict, list, str, int, float, bool, bytes) and back, strictly.

Used where a value crosses a process border. Reading refuses unknown, missing and mistyped fields. A field that a later
minor version of a protocol added says so (`since`): towards a peer of an earlier minor it does not exist.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from attestation.errors import InvalidInput
from attestation.instance import InstanceId

T = TypeVar("T")

NEWEST = 10_000
"""A minor that no protocol reaches: every field exists."""
_SINCE = "since"


def since(minor: int, default: T) -> T:
    """A dataclass field that minor version `minor` of a protocol added. default: what its absence means."""
    return field(default=default, metadata={_SINCE: minor})


def introduced(shape: type, name: str) -> int:
    """The minor that added this field of one of our dataclasses; 0 where it was always there."""
    return _fields(shape)[name].since


def plain(value: Any, *, minor: int = NEWEST) -> Any:
    """The value with every dataclass turned into a dict and every enum into its text, as `minor` knows them."""
    if isinstance(value, InstanceId | StrEnum):
        return str(value)
    if is_dataclass(value):
        shape = cast(type, type(value))
        known = (name for name, each in _fields(shape).items() if each.since <= minor)
        return {name: plain(getattr(value, name), minor=minor) for name in known}
    if isinstance(value, tuple | list):
        return [plain(each, minor=minor) for each in value]
    return value


def build(shape: type[T], value: Any, where: str = "message", *, minor: int = NEWEST) -> T:
    """`plain` reversed. Raises InvalidInput, naming the field, for anything that is not exactly of this shape.

    A field that came after `minor` is as unknown as one that never was.
    """
    return cast(T, _build(shape, value, where, minor))


@dataclass(frozen=True, slots=True)
class _Field:
    shape: Any
    required: bool
    since: int


@cache
def _fields(shape: type) -> dict[str, _Field]:
    hints = get_type_hints(shape)
    return {
        each.name: _Field(
            hints[each.name],
            each.default is MISSING and each.default_factory is MISSING,
            each.metadata.get(_SINCE, 0),
        )
        for each in fields(shape)
    }


def _build(shape: Any, value: Any, where: str, minor: int) -> Any:
    origin = get_origin(shape)
    if origin in (Union, types.UnionType):
        return _build_union(shape, value, where, minor)
    if origin is tuple:
        if not isinstance(value, list):
            raise InvalidInput("a list was expected", where=where)
        return tuple(_build(get_args(shape)[0], each, f"{where}[{index}]", minor) for index, each in enumerate(value))
    if is_dataclass(shape) and shape is not InstanceId:
        return _build_dataclass(cast(type, shape), value, where, minor)
    if shape is InstanceId or issubclass(shape, StrEnum):
        return _build_text(shape, value, where)
    if shape is float and type(value) is int:
        return float(value)
    if type(value) is not shape:
        raise InvalidInput(f"{shape.__name__} was expected, {type(value).__name__} found", where=where)
    return value


def _build_union(shape: Any, value: Any, where: str, minor: int) -> Any:
    options = [each for each in get_args(shape) if each is not types.NoneType]
    if value is None and len(options) < len(get_args(shape)):
        return None
    if len(options) != 1:
        raise InvalidInput("no single shape fits here", where=where)
    return _build(options[0], value, where, minor)


def _build_dataclass(shape: type, value: Any, where: str, minor: int) -> Any:
    if not isinstance(value, dict):
        raise InvalidInput("a map was expected", where=where)
    known = {name: each for name, each in _fields(shape).items() if each.since <= minor}
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise InvalidInput(f"unknown field {unknown[0]}", where=where)
    missing = [name for name, each in known.items() if each.required and name not in value]
    if missing:
        raise InvalidInput(f"the field {missing[0]} is missing", where=where)
    return shape(**{name: _build(known[name].shape, each, f"{where}.{name}", minor) for name, each in value.items()})


def _build_text(shape: Any, value: Any, where: str) -> Any:
    if not isinstance(value, str):
        raise InvalidInput("text was expected", where=where)
    try:
        return shape(value)
    except ValueError as error:
        raise InvalidInput(f"{value!r} is not one of {[str(each) for each in shape]}", where=where) from error
