"""Our frozen dataclasses as plain values (dict, list, str, int, float, bool, bytes) and back, strictly.

Used where a value crosses a process border. Reading refuses unknown, missing and mistyped fields.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from attestation.errors import InvalidInput
from attestation.instance import InstanceId

T = TypeVar("T")


def plain(value: Any) -> Any:
    """The value with every dataclass turned into a dict and every enum into its text."""
    if isinstance(value, InstanceId | StrEnum):
        return str(value)
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value


def build(shape: type[T], value: Any, where: str = "message") -> T:
    """`plain` reversed. Raises InvalidInput, naming the field, for anything that is not exactly of this shape."""
    return cast(T, _build(shape, value, where))


@cache
def _fields(shape: type) -> dict[str, tuple[Any, bool]]:
    hints = get_type_hints(shape)
    return {
        each.name: (hints[each.name], each.default is MISSING and each.default_factory is MISSING)
        for each in fields(shape)
    }


def _build(shape: Any, value: Any, where: str) -> Any:
    origin = get_origin(shape)
    if origin in (Union, types.UnionType):
        return _build_union(shape, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise InvalidInput("a list was expected", where=where)
        return tuple(_build(get_args(shape)[0], each, f"{where}[{index}]") for index, each in enumerate(value))
    if is_dataclass(shape) and shape is not InstanceId:
        return _build_dataclass(cast(type, shape), value, where)
    if shape is InstanceId or issubclass(shape, StrEnum):
        return _build_text(shape, value, where)
    if shape is float and type(value) is int:
        return float(value)
    if type(value) is not shape:
        raise InvalidInput(f"{shape.__name__} was expected, {type(value).__name__} found", where=where)
    return value


def _build_union(shape: Any, value: Any, where: str) -> Any:
    options = [each for each in get_args(shape) if each is not types.NoneType]
    if value is None and len(options) < len(get_args(shape)):
        return None
    if len(options) != 1:
        raise InvalidInput("no single shape fits here", where=where)
    return _build(options[0], value, where)


def _build_dataclass(shape: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InvalidInput("a map was expected", where=where)
    known = _fields(shape)
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise InvalidInput(f"unknown field {unknown[0]}", where=where)
    missing = [name for name, (_, required) in known.items() if required and name not in value]
    if missing:
        raise InvalidInput(f"the field {missing[0]} is missing", where=where)
    return shape(**{name: _build(known[name][0], each, f"{where}.{name}") for name, each in value.items()})


def _build_text(shape: Any, value: Any, where: str) -> Any:
    if not isinstance(value, str):
        raise InvalidInput("text was expected", where=where)
    try:
        return shape(value)
    except ValueError as error:
        raise InvalidInput(f"{value!r} is not one of {[str(each) for each in shape]}", where=where) from error
