"""What kinds of value a rule can handle, and which a declared class of summary has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic.alias_generators import to_camel


@dataclass(frozen=True, slots=True)
class Scalar:
    """name: as messages and the reference call it. order: can one of two be the greater, by `<`?"""

    name: str
    order: bool = False

    def __str__(self) -> str:
        return self.name


BOOL = Scalar("bool")
INT = Scalar("int", order=True)
STRING = Scalar("string")
DURATION = Scalar("duration", order=True)
"""Whole milliseconds where rules run."""
DIGEST, IP, CIDR, SEMVER, SPIFFE = (Scalar(each) for each in ("digest", "IP", "CIDR", "semver", "SPIFFE ID"))
"""Texts of one form each, canonical where rules run: what is none has been refused before it is compared."""


@dataclass(frozen=True, slots=True)
class Words:
    """A string that is one of a few words."""

    known: tuple[str, ...]

    def __str__(self) -> str:
        return "one of " + ", ".join(each or "nothing" for each in self.known)


_MOST_TOLD = 16


@dataclass(frozen=True, slots=True)
class ListOf:
    """most: elements."""

    element: Type
    most: int

    def __str__(self) -> str:
        many = isinstance(self.element, Words) and len(self.element.known) > _MOST_TOLD
        return f"list of {'words' if many else self.element}, at most {self.most}"


@dataclass(frozen=True, slots=True)
class MapOf:
    """From string to string. most: entries."""

    most: int

    def __str__(self) -> str:
        return f"map of string to string, at most {self.most}"


@dataclass(frozen=True, slots=True)
class Field:
    """attribute: its name in Python."""

    type: Type
    meaning: str
    attribute: str


@dataclass(frozen=True)
class Record:
    """Something with named fields. fields: by the name that rules use."""

    name: str
    fields: Mapping[str, Field]

    def __str__(self) -> str:
        return self.name


Type = Scalar | Words | ListOf | MapOf | Record


@dataclass(frozen=True, slots=True)
class Most:
    """Annotates a list or a map in a declaration: never more than that many."""

    count: int


@cache
def record(declared: type) -> Record:
    """A dataclass as rules see it: its fields are `Annotated[type, "meaning"]`, lists and maps with their `Most`."""
    hints = get_type_hints(declared, include_extras=True)
    found = {to_camel(each.name): _field(hints[each.name], each.name) for each in fields(declared)}
    return Record(declared.__name__.lower(), found)


def _field(hint: Any, attribute: str) -> Field:
    assert get_origin(hint) is Annotated, attribute  # noqa: S101 - a field without its meaning is a mistake of ours
    shape, *notes = get_args(hint)
    meaning = next(each for each in notes if isinstance(each, str))
    form = next((each for each in notes if isinstance(each, (Scalar, Words))), None)
    most = next((each.count for each in notes if isinstance(each, Most)), 0)
    if get_origin(shape) is tuple:
        return Field(ListOf(form or _type(get_args(shape)[0]), most), meaning, attribute)
    if get_origin(shape) in (dict, Mapping):
        return Field(MapOf(most), meaning, attribute)
    return Field(form or _type(shape), meaning, attribute)


_PLAIN: Mapping[Any, Scalar] = {bool: BOOL, int: INT, str: STRING}


def _type(shape: Any) -> Type:
    if is_dataclass(shape):
        return record(shape)  # type: ignore[arg-type] # a class: it is a declaration
    return Words(tuple(map(str, shape))) if issubclass(shape, StrEnum) else _PLAIN[shape]
