"""The one YAML dialect of policies and settings: camelCase keys, durations as `10s`, nothing unknown, nothing twice.

Every error names file, line and column, and an unknown key the nearest known one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

from attestation.errors import InvalidConfiguration, InvalidInput, Unavailable
from attestation.quantities import duration, seconds
from policies.model.scalars import inside

if TYPE_CHECKING:
    from policies.model.libyaml import Loader

_MOST_BYTES = 16 * 1024 * 1024
_MOST_FAULTS = 100
_MISREAD = (ValueError, TypeError, AttributeError, LookupError, OverflowError)
"""What PyYAML raises of its own for `!!int ""`, or a list as a key."""


class Strict(BaseModel):
    """Base of every document and setting: frozen, camelCase outside, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


def _duration(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a duration has a unit: 250ms, 10s, 5m")
    try:
        return seconds(value)
    except InvalidInput as error:
        raise ValueError(error.sentence) from error


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(duration),
    WithJsonSchema({"type": "string", "title": "duration", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"}),
]
"""Seconds; written as `10s`."""

_SHARE = re.compile(r"([1-9][0-9]?|100)%", re.ASCII)


def _share(value: object) -> object:
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a share is a whole number of percent, from 1% to 100%")
    return int(match[1])


def _percent(value: int) -> str:
    return f"{value}%"


Share = Annotated[
    int,
    BeforeValidator(_share),
    PlainSerializer(_percent),
    WithJsonSchema({"type": "string", "title": "share", "pattern": f"^{_SHARE.pattern}$"}),
]
"""Percent, from 1 to 100; written as `25%`."""

Model = TypeVar("Model", bound=BaseModel)

_KEY = "[key]"
"""Stands last in the path of a fault that is a key's of a map."""
AT = "at"
"""In the context of a fault: the character of the text that is at fault, counted from 0."""


def read_text(path: Path) -> str:
    """Raises InvalidConfiguration when the file cannot be read, is no text or is larger than 16 MiB."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidConfiguration(
            f"the file cannot be read: {error.strerror}", where=str(path), mend="Check the path and its permissions."
        ) from error
    if len(raw) > _MOST_BYTES:
        raise InvalidConfiguration("the file is too large", where=str(path), mend="Keep it within 16 MiB.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidConfiguration("the file is not UTF-8 text", where=str(path)) from error


def read(path: Path, model: type[Model], environment: Mapping[str, str] | None = None) -> Model:
    """The single document in `path`, with `PROOFBEAT_AUTHORITY_URL`-style overrides from the environment."""
    documents = list(parse(read_text(path), str(path)))
    if len(documents) != 1:
        raise InvalidConfiguration(f"{len(documents)} documents where one belongs", where=str(path))
    value, node = documents[0]
    if isinstance(value, dict):
        value = _overridden(value, model, "PROOFBEAT", environment or {})
    return validate(value, node, model, str(path))


def _overridden(value: dict[str, Any], model: type[BaseModel], prefix: str, env: Mapping[str, str]) -> dict[str, Any]:
    """The value with each scalar replaced for which a variable is set: prefix and keys in capitals, joined by `_`."""
    result = dict(value)
    for name, field in model.model_fields.items():
        key, variable = field.alias or name, f"{prefix}_{name.upper()}"
        inner = next(_models_in(field.annotation), None)
        if inner is not None and isinstance(result.get(key, {}), dict):
            below = _overridden(result.get(key, {}), inner, variable, env)
            if below:
                result[key] = below
        elif variable in env:
            result[key] = next((found for found, _ in parse(env[variable], variable)), None)
    return result


def parse(text: str, origin: str) -> Iterator[tuple[Any, yaml.Node]]:
    """Each YAML document as a plain value with its node, which knows lines and columns.

    Raises InvalidConfiguration, and Unavailable as `reader` does.
    """
    loader, make = None, reader()
    try:
        loader = make(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # What is missing at the end libyaml misses in a line of its own.
        where = _counted(text, len(text), origin) if mark and mark.index >= len(text) else place(origin, mark)
        tab = mark is not None and text[mark.index : mark.index + 1] == "\t"
        said = "a tab, where YAML takes spaces only" if tab else error.problem or "this is not YAML"
        raise InvalidConfiguration(said, where=where) from error
    except yaml.reader.ReaderError as error:
        where = _counted(text, error.position, origin)
        raise InvalidConfiguration(f"this is not YAML: {error.reason}", where=where) from error
    except _MISREAD as error:
        where = place(origin, loader.at if loader else None)
        raise InvalidConfiguration(f"a value that cannot be read ({error})", where=where) from error
    finally:
        if loader is not None:
            loader.dispose()


def reader() -> type[Loader]:
    """What reads YAML. Raises Unavailable where PyYAML was built without it."""
    try:
        from policies.model.libyaml import Loader
    except ImportError as error:
        raise Unavailable(
            "this PyYAML was built without libyaml, by which policies and settings are read",
            where="yaml._yaml",
            mend="Install one that has it, as its wheels do: "
            "pip install --force-reinstall --only-binary pyyaml pyyaml. Or install libyaml-dev and build it anew.",
        ) from error
    return Loader


def _counted(text: str, at: int, origin: str) -> str:
    """The place of a character, by its number."""
    before = text[:at]
    return f"{origin}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


class Faults(InvalidConfiguration):
    """Everything that is wrong with one document; reads as the first of it. Never empty."""

    def __init__(self, faults: Sequence[InvalidConfiguration]) -> None:
        first = faults[0]
        super().__init__(first.what, where=first.where, mend=first.mend)
        self.faults = tuple(faults)


def faults_of(error: InvalidConfiguration) -> Sequence[InvalidConfiguration]:
    """Each that is told by this one."""
    return error.faults if isinstance(error, Faults) else (error,)


def validate(value: Any, node: yaml.Node, model: type[Model], origin: str) -> Model:
    """The value as a model. Raises Faults, each with its place."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Faults(list(_faults(error, node, model, origin))) from error


def _faults(error: ValidationError, node: yaml.Node, model: type[Model], origin: str) -> Iterator[InvalidConfiguration]:
    """A mistyped key is missing under its right name as well: only the key that stands there is told.

    The first _MOST_FAULTS: each is looked for in the whole document.
    """
    every = error.errors(include_url=False, include_input=False)
    found = every[:_MOST_FAULTS]
    unknown = [list(fault["loc"]) for fault in found if fault["type"] == "extra_forbidden"]
    meant: set[tuple[str | int, ...]] = set()
    for path in unknown:
        key, known = str(path[-1]), _keys_at(model, path[:-1])
        meant.update((*path[:-1], near) for near in _near(key, known))
        yield _unknown_key(key, known, place(origin, mark(node, path)))
    for fault in found:
        path = [step for step in fault["loc"] if step != _KEY]
        if fault["type"] == "extra_forbidden" or (fault["type"] == "missing" and tuple(path) in meant):
            continue
        dotted = ".".join(str(step) for step in path) or "the document"
        where = place(origin, mark(node, path, fault.get("ctx", {}).get(AT)))
        yield InvalidConfiguration(f"{dotted}: {_in_words(fault['type'], fault['msg'])}", where=where)
    if len(every) > len(found):
        yield InvalidConfiguration(
            f"{len(every) - len(found)} more faults of this document are not told",
            where=place(origin, node.start_mark),
            mend=f"Mend these {len(found)} first.",
        )


_A_MAP, _A_LIST = "a map belongs here, `{key: value}`", "a list belongs here, `[one, another]`"
_WORDS = {
    "missing": "it is missing",
    "dict_type": _A_MAP,
    "mapping_type": _A_MAP,
    "model_type": _A_MAP,
    "tuple_type": _A_LIST,
    "string_type": 'text belongs here, `"..."`',
    "bool_type": "true or false belongs here",
    "bool_parsing": "true or false belongs here",
    "int_type": "a whole number belongs here",
    "int_parsing": "a whole number belongs here",
    "int_from_float": "a whole number belongs here",
}
"""Type of a pydantic fault -> what a writer of YAML is to be told, who has never seen a tuple."""
_SHOULD = re.compile(r"^[A-Z][a-z]+ should ")


def _in_words(kind: str, said: str) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    said = _SHOULD.sub("it must ", said.removeprefix("Value error, ")).replace(" after validation", "")
    return said[0].lower() + said[1:]


def _unknown_key(key: str, known: list[str], where: str) -> InvalidConfiguration:
    near = _near(key, known)
    mend = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(known))}."
    return InvalidConfiguration(f"unknown key {key!r}", where=where, mend=mend)


def _near(key: str, known: list[str]) -> list[str]:
    """The known key that is meant, if any is near."""
    return difflib.get_close_matches(key, known, n=1, cutoff=0.5)


def _keys_at(model: type[BaseModel], path: list[str | int]) -> list[str]:
    """The keys a document may use at this place; empty where the model's type does not tell."""
    current: Any = model
    for step in path:
        if _is_model(current):
            current = {field.alias or name: field.annotation for name, field in current.model_fields.items()}.get(
                str(step)
            )
            if get_origin(current) in (dict, tuple):
                continue  # the next step is a key or an index in it
        current = next(_models_in(current), None)
    return [field.alias or name for name, field in current.model_fields.items()] if _is_model(current) else []


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if _is_model(annotation):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def mark(node: yaml.Node, path: Sequence[str | int], at: int | None = None) -> yaml.Mark:
    """Where the key or entry at the end of this path stands; what is not there, where it would belong.

    at: character of the text there, which is meant then.
    """
    for number, step in enumerate(path, start=1):
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if found is None:
                break
            node = found[0] if number == len(path) and at is None else found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
        else:
            break
    if at is not None and isinstance(node, yaml.ScalarNode):
        return inside(node, at)
    return node.start_mark


def place(origin: str, mark: yaml.Mark | None) -> str:
    """`web.yaml:12:3`."""
    return f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
