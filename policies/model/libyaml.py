"""YAML as libyaml reads it, without what the dialect has no use for.

Nothing but `dialect` imports this, and only once there is something to read: a PyYAML built without libyaml has no such
parser.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

_MOST_DEPTH = 32
_MOST_DIGITS = 20


class Loader(Composer, CParser, SafeConstructor, Resolver):
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


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _integer(loader: Loader, node: yaml.ScalarNode) -> int:
    """Bounded, and not in base 60: such a one takes the square of its length to read, and to write."""
    text = loader.construct_scalar(node)
    if len(text) > _MOST_DIGITS or ":" in text:
        why = f"no integer of at most {_MOST_DIGITS} digits"
        raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)
    return loader.construct_yaml_int(node)


def _float(loader: Loader, node: yaml.ScalarNode) -> float:
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
Loader.yaml_constructors = {
    tag: make
    for tag, make in Loader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq")
} | {
    "tag:yaml.org,2002:map": _mapping,
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": _float,
}
Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, _NUMBERS.get(tag, pattern))
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:timestamp" and not (tag == "tag:yaml.org,2002:bool" and letter in "yYnNoO")
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
