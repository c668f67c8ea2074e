"""docs/policy-reference.md and docs/schema/, from the models: `python -m policies.author.reference docs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from attestation.signals import Signal
from policies.author.meanings import meanings
from policies.author.remarks import MEANINGS
from policies.author.schema import KINDS, schema
from policies.model.cel.check import MACROS
from policies.model.cel.functions import FUNCTIONS
from policies.model.cel.types import ListOf, Record, record
from policies.model.fields import known
from policies.model.seen import Summary
from policies.model.strictness import (
    Alike,
    All,
    Bounded,
    Common,
    CommonBits,
    CommonBy,
    Least,
    LeastStated,
    Most,
    Order,
    Overlapping,
    PerKey,
    Ranked,
)

PAGE, SCHEMAS = "policy-reference.md", "schema"

_HEAD = """# Reference of policy documents

Made from the models (policies/model/, policies/author/cases.py) by `python -m policies.author.reference docs`; a test
holds them in step. `proofbeat policy schema KIND` prints the same as JSON Schema, and [schema/](schema/) has them for
editors: `# yaml-language-server: $schema=docs/schema/AttestationPolicy.json`.

`*` stands for any key of a map, `[]` for each entry of a list. A duration is a number and a unit: `250ms`, `10s`, `5m`,
`1h`, `1d`. A digest is what `sha256sum` prints, and may begin with `sha256:`. A mode is octal and quoted: `"0644"`.
Unknown keys, keys given twice and aliases are refused. Where several policies apply to a workload, each value of the
merged policy is the stricter one of those that are stated; *stricter* says which that is. A place that no policy states
has its default. How one writes policies, tries and enforces them: [policies.md](policies.md).
"""


def document() -> str:
    """The page."""
    parts = [
        _HEAD,
        *(_kind(name, model) for name, model in KINDS.items()),
        _signals(),
        _seen(),
        _functions(),
        _checks(),
    ]
    return "\n".join(parts)


def write(folder: Path) -> None:
    """The page, and a schema of each kind."""
    (folder / PAGE).write_text(document())
    (folder / SCHEMAS).mkdir(exist_ok=True)
    for kind in KINDS:
        (folder / SCHEMAS / f"{kind}.json").write_text(json.dumps(schema(kind), indent=1) + "\n")


def _kind(name: str, model: type[BaseModel]) -> str:
    merged = any(each.order for each in known(model))
    head = ["field", "type", "default", *(["stricter"] if merged else []), "meaning"]
    return f"## {name}\n{_about(model)}\n\n" + "".join(_table(head, _rows(model, schema(name), merged=merged)))


def _about(model: type[BaseModel]) -> str:
    """What the docstring of its module says after the kind's name."""
    said = (sys.modules[model.__module__].__doc__ or "").partition("\n\n")[0].partition(": ")[2]
    return said[:1].upper() + said[1:]


def _rows(model: type[BaseModel], whole: dict[str, Any], *, merged: bool) -> Iterator[list[str]]:
    for each in known(model):
        made = _at(whole, each.place)
        default = f"`{_line(made['default'])}`" if "default" in made else "required" if each.info.is_required() else ""
        order = [_stricter(each.order)] if merged else []
        yield [f"`{each.place}`", _type(made), default, *order, meanings(each.owner).get(each.name, "")]


def _at(made: dict[str, Any], place: str) -> dict[str, Any]:
    """The schema of a place."""
    for step in place.replace("[]", ".[]").split("."):
        match step:
            case "[]":
                made = made["items"]
            case "*":
                made = made["additionalProperties"]
            case _:
                made = made["properties"][step]
    return made


def _type(made: dict[str, Any]) -> str:
    if "enum" in made:
        return ", ".join(f"`{each}`" for each in made["enum"])
    match made.get("type"):
        case "array":
            return f"list of {_type(made['items'])}" if made["items"].get("type") != "object" else "list"
        case "object" if "properties" not in made:
            inner = made.get("additionalProperties") or {}
            return "map" if inner.get("type") in (None, "object") else f"map to {_type(inner)}"
        case "object":
            return ""
        case "string":
            return str(made.get("title", "text"))
        case "boolean":
            return "true, false"
        case _:
            return "number"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def _stricter(order: Order | None) -> str:
    """Its values, a word of ours, or the first sentence of the order's own docstring."""
    if isinstance(order, Ranked):
        return " < ".join(f"`{_line(each)}`" for each in order.loosest_first)
    if isinstance(order, PerKey):
        return "key by key" + (f": {_stricter(order.values)}" if order.values is not None else "")
    said = (type(order).__doc__ or "").partition(". ")[0] if order is not None else ""
    return _STRICTER.get(type(order), said)


_STRICTER: dict[type, str] = {
    Least: "less",
    LeastStated: "less",
    Most: "more",
    All: "all that any asks",
    Common: "only what all allow",
    CommonBits: "only what all allow",
    CommonBy: "only whom all allow",
    Overlapping: "only whom all allow, and as much as all do",
    Bounded: "only what all exempt",
    Alike: "must be alike",
}


def _signals() -> str:
    rows = ([f"`{each}`", f"{each.default}{' *' * each.fixed}", each.meaning] for each in Signal)
    said = "What is found, by its stable word. `onViolation` states another class, but for those with a `*`."
    return f"## Signals\n{said}\n\n" + "".join(_table(["signal", "class", "meaning"], rows))


def _seen() -> str:
    rows = (
        [f"`{part}.{name}{f'[].{inner}' if inner else ''}`", str(field.type), field.meaning]
        for part, about in record(Summary).fields.items()
        for name, inner, field in _fields(about.type)
    )
    said = "A summary of fixed size. What exceeds it is not cut: a rule that looks at that fails."
    return f"## What rules see\n{said}\n\n" + "".join(_table(["field", "type", "meaning"], rows))


def _fields(part: Any) -> Iterator[tuple[str, str, Any]]:
    assert isinstance(part, Record)  # noqa: S101 - so are all parts of the summary
    for name, field in part.fields.items():
        yield name, "", field
        if isinstance(field.type, ListOf) and isinstance(field.type.element, Record):
            yield from ((name, inner, each) for inner, each in field.type.element.fields.items())


def _functions() -> str:
    rows = ([f"`{each.signature}`", each.meaning] for each in FUNCTIONS.values())
    said = f"Beside operators, `size`, `has`, and the macros {', '.join(f'`{each}`' for each in MACROS)}."
    return f"## What rules may call\n{said}\n\n" + "".join(_table(["function", "meaning"], rows))


def _checks() -> str:
    rows = ([f"`{check}`", meaning] for check, meaning in MEANINGS.items())
    said = "By the name in brackets; in SARIF it is the `ruleId`."
    return f"## What `proofbeat policy check` says\n{said}\n\n" + "".join(_table(["check", "means"], rows))


def _table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
    for row in rows:
        yield f"| {' | '.join(each.replace('|', chr(92) + '|') for each in row)} |\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
