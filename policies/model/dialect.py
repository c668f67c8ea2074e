"""The one YAML dialect of policies and settings: camelCase keys, durations as `10s`, nothing unknown, nothing twice.

Every error names file, line and column, and an unknown key the nearest known one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel
from yaml._yaml import CParser
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from attestation.errors import InvalidConfiguration, InvalidInput
from attestation.quantities import duration, seconds
from policies.model.scalars import inside

_MOST_BYTES = 16 * 1024 * 1024
_MOST_DEPTH = 32
_MOST_DIGITS = 20
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


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """SafeLoader that knows what JSON knows, refuses a key given twice and NUL, and leaves time stamps as text.

    And `off`, `no` and their like, as YAML 1.2 does: `demand: off` means the word. libyaml reads the text, in a tenth
    of the time; nodes are put together here, and remember their text as those of PyYAML's own reader do.
    """

    def __init__(self, text: str) -> None:
        self._text = text + "\0"
        _refuse_unprintable(text)
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._depth = 0
        self.at: yaml.Mark | None = None

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """at: what is constructed now, for whoever tells of what PyYAML raises of its own."""
        self.at = node.start_mark
        return super().construct_object(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Raises ComposerError for what is nested deeper than any document is: it costs the square of the depth.

        And for an alias: ten of ten of ten, told in one error message, fill a machine.
        """
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias: write out what it stands for", self._ahead())
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {_MOST_DEPTH}", self._ahead())
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        node.start_mark, node.end_mark = self._in_text(node.start_mark), self._in_text(node.end_mark)
        return node

    def _ahead(self) -> yaml.Mark:
        event: Any = self.peek_event()
        return self._in_text(event.start_mark)

    def _in_text(self, mark: Any) -> yaml.Mark:
        return yaml.Mark(mark.name, mark.index, mark.line, mark.column, self._text, mark.index)

    def construct_scalar(self, node: Any) -> Any:
        """Raises ConstructorError for text with a NUL in it: no path and no name here can hold one."""
        value = super().construct_scalar(node)
        if "\0" in value:
            raise yaml.constructor.ConstructorError(None, None, "a NUL in a text", node.start_mark)
        return value


def _refuse_unprintable(text: str) -> None:
    """Raises ReaderError with the character's number: libyaml counts bytes."""
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if found is not None:
        why = "special characters are not allowed"
        raise yaml.reader.ReaderError("<unicode string>", found.start(), ord(found[0]), "unicode", why)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """Bounded, and not in base 60: such a one takes the square of its length to read, and to write."""
    text = loader.construct_scalar(node)
    if len(text) > _MOST_DIGITS or ":" in text:
        why = f"no integer of at most {_MOST_DIGITS} digits"
        raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)
    return loader.construct_yaml_int(node)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    if ":" in loader.construct_scalar(node):
        raise yaml.constructor.ConstructorError(None, None, "no number", node.start_mark)
    return loader.construct_yaml_float(node)


_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
"""What is read as a number without being tagged as one: as YAML 1.1, without its base 60."""
_Loader.yaml_constructors = {
    tag: make
    for tag, make in _Loader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq")
} | {
    "tag:yaml.org,2002:map": _mapping,
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": _float,
}
_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, _NUMBERS.get(tag, pattern))
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:timestamp" and not (tag == "tag:yaml.org,2002:bool" and letter in "yYnNoO")
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


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
    """Each YAML document as a plain value with its node, which knows lines and columns."""
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # What is missing at the end libyaml misses in a line of its own.
        where = _counted(text, len(text), origin) if mark and mark.index >= len(text) else place(origin, mark)
        raise InvalidConfiguration(error.problem or "this is not YAML", where=where) from error
    except yaml.reader.ReaderError as error:
        where = _counted(text, error.position, origin)
        raise InvalidConfiguration(f"this is not YAML: {error.reason}", where=where) from error
    except _MISREAD as error:
        where = place(origin, loader.at if loader else None)
        raise InvalidConfiguration(f"a value that cannot be read ({error})", where=where) from error
    finally:
        if loader is not None:
            loader.dispose()


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
        said = fault["msg"].removeprefix("Value error, ")
        where = place(origin, mark(node, path, fault.get("ctx", {}).get(AT)))
        yield InvalidConfiguration(f"{dotted}: {said[0].lower() + said[1:]}", where=where)
    if len(every) > len(found):
        yield InvalidConfiguration(
            f"{len(every) - len(found)} more faults of this document are not told",
            where=place(origin, node.start_mark),
            mend=f"Mend these {len(found)} first.",
        )


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
