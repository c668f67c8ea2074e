"""What each field means, out of the docstring of its model: `interval: between rounds. freshness: of a lease.`"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum, StrEnum
from functools import cache
from itertools import takewhile
from typing import Any, get_args

from pydantic import BaseModel

from policies.model.dialect import Strict


@cache
def meanings(model: type[BaseModel]) -> Mapping[str, str]:
    """Field -> what it means: by its model's docstring, else by the text below it, else by its type's docstring.

    A field that nothing says anything of is not here.
    """
    found = {name: _of_type(field.annotation) for name, field in model.model_fields.items()}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            names = _names(each)
            found |= _below(each, names) | {names[said]: text for said, text in _marked(each.__doc__ or "", [*names])}
    return {name: text for name, text in found.items() if text}


def summary(described: type) -> str:
    """What the docstring says before it comes to single fields or members."""
    text = inspect.cleandoc(_own_docstring(described))
    names = _names(described) if issubclass(described, BaseModel) else {each.value: "" for each in _members(described)}
    first = next(_marks(text, [*names]), None)
    before = text[: first.start()] if first else text
    return " ".join(before.partition("\n\n")[0].split()) if before.strip() else ""


def _own_docstring(described: type) -> str:
    """Its own, else the nearest ancestor's that is not everybody's."""
    own = takewhile(lambda each: each not in (Strict, StrEnum, Enum), described.__mro__)
    return next((text for each in own if (text := each.__dict__.get("__doc__"))), "")


def _of_type(annotation: Any) -> str:
    """The docstring of the first model or enumeration in it; of an enumeration all of it."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " ".join(inspect.cleandoc(_own_docstring(annotation)).split())
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return summary(annotation)
    return next((text for each in get_args(annotation) if (text := _of_type(each))), "")


def _names(model: type[BaseModel]) -> dict[str, str]:
    """As a docstring may call a field, by its name or its alias -> its name."""
    fields = getattr(model, "model_fields", {})
    return {name: name for name in fields} | {field.alias: name for name, field in fields.items() if field.alias}


def _members(described: type) -> tuple[Any, ...]:
    return tuple(described) if issubclass(described, Enum) else ()


def _marks(text: str, names: list[str]) -> Iterator[re.Match[str]]:
    """Where a docstring comes to one of these, or to several at once."""
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
    return re.finditer(rf"(?:^|(?<=\n)|(?<=[.;:] )|(?<=[.;]\n))((?:{one})(?:, (?:{one}))*): ", text)


def _marked(docstring: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """Name -> what is said of it: up to the next name, or the end of the paragraph."""
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        text = " ".join(paragraph.split())
        marks = list(_marks(text, names))
        for mark, following in zip(marks, [*marks[1:], None], strict=False):
            said = text[mark.end() : following.start() if following else None].rstrip("; ")
            for name in mark[1].split(", "):
                yield name, said


def _below(model: type[BaseModel], names: Mapping[str, str]) -> dict[str, str]:
    """Texts that stand below fields of the class."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(made, ast.ClassDef)  # noqa: S101 - it is the source of a class
    found = {}
    for field, text in zip(made.body, made.body[1:], strict=False):
        said = text.value if isinstance(text, ast.Expr) else None
        if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Constant) and isinstance(said.value, str):
            found[ast.unparse(field.target)] = " ".join(said.value.split())
    return {name: text for name, text in found.items() if name in names}
