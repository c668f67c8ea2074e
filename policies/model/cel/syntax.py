"""The text of a rule as a tree, with the place of everything in it.

The grammar is CEL's (cel-spec, "Syntax"), without what no rule can use: maps and messages made on the spot, bytes,
unsigned numbers and fractions, null. What is not in it is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from attestation.errors import InvalidInput

MOST_CHARACTERS = 4096
MOST_TOKENS = 512
MOST_DEPTH = 16
MOST_NUMBER = 2**63 - 1

T = TypeVar("T")


class InvalidExpression(InvalidInput):
    """at: where in the text, counted in characters from 0."""

    def __init__(self, at: int, what: str, mend: str = "") -> None:
        self.at = at
        super().__init__(what, where=f"character {at + 1}", mend=mend)


# --- the tree; `at` is where the reader should look ---


@dataclass(frozen=True, slots=True)
class Literal:
    at: int
    value: bool | int | str


@dataclass(frozen=True, slots=True)
class Name:
    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """`of.name`"""

    at: int
    of: Node
    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """`of[key]`"""

    at: int
    of: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Call:
    """`name(arguments)`, or `of.name(arguments)`"""

    at: int
    of: Node | None
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Unary:
    at: int
    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    at: int
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Chain:
    """Two or more operands joined by `&&`, or by `||`."""

    at: int
    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """`condition ? then : otherwise`"""

    at: int
    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Elements:
    """`[elements]`"""

    at: int
    elements: tuple[Node, ...]


Node = Literal | Name | Member | Index | Call | Unary | Binary | Chain | Choice | Elements
N = TypeVar("N", bound=Node)


def parse(text: str) -> Node:
    """Raises InvalidExpression for what is no expression, or a longer or deeper one than a rule may be."""
    if len(text) > MOST_CHARACTERS:
        raise InvalidExpression(MOST_CHARACTERS, f"longer than {MOST_CHARACTERS} characters", _DIVIDE)
    return _Parser(text).parsed()


_DIVIDE = "Make several rules of it."

# --- words ---


@dataclass(frozen=True, slots=True)
class _Token:
    """kind: `name`, `number`, `string`, `end`, or the sign itself."""

    at: int
    kind: str
    value: str | int = ""


_BLANK = re.compile(r"(?:[ \t\r\n\f]|//[^\n]*)*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_FRACTION = re.compile(r"[0-9]*\.[0-9]|[0-9]+[eE][+-]?[0-9]")
_STRING = re.compile(r"""([rRbB]{0,2})(\"{3}|'{3}|"|')""")
_SIGN = re.compile(r"&&|\|\||[=!<>]=|[<>!+\-*/%?:.,()\[\]{}]")
_RESERVED = frozenset(
    (
        *("as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "namespace"),
        *("package", "return", "var", "void", "while"),
    )
)
"""What CEL keeps for itself (cel-spec, RESERVED): no name of a variable."""


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = _blank(text, 0)
    while at < len(text):
        token, after = _token(text, at)
        found.append(token)
        if len(found) > MOST_TOKENS:
            raise InvalidExpression(at, f"more than {MOST_TOKENS} words and signs", _DIVIDE)
        at = _blank(text, after)
    return [*found, _Token(len(text), "end")]


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _token(text: str, at: int) -> tuple[_Token, int]:
    """The token that begins here, and where it ends."""
    if match := _STRING.match(text, at):
        return _string(text, at, match[1].lower(), match[2], match.end())
    if match := _NAME.match(text, at):
        return _Token(at, "name", match[0]), match.end()
    if _FRACTION.match(text, at):
        raise InvalidExpression(at, "a number with a fraction", "Everything that a rule sees is counted in whole ones.")
    if match := _NUMBER.match(text, at):
        return _number(text, at, match)
    if match := _SIGN.match(text, at):
        return _Token(at, match[0]), match.end()
    raise InvalidExpression(at, f"{text[at]!r} means nothing here")


def _number(text: str, at: int, match: re.Match[str]) -> tuple[_Token, int]:
    if after := _NAME.match(text, match.end()):
        unsigned = after[0] in ("u", "U")
        what = "an unsigned number" if unsigned else f"{match[0] + after[0]!r} is no number"
        raise InvalidExpression(at, what, "Leave the u away." if unsigned else "")
    value = int(match[0], 16 if match[0][:2].lower() == "0x" else 10)
    if value > MOST_NUMBER:
        raise InvalidExpression(at, "a number beyond 64 bits")
    return _Token(at, "number", value), match.end()


def _string(text: str, at: int, prefix: str, quote: str, begins: int) -> tuple[_Token, int]:
    if "b" in prefix or len(prefix) > 1:
        raise InvalidExpression(at, "bytes", "Nothing that a rule sees is bytes: leave the prefix away.")
    parts, position = [], begins
    while not text.startswith(quote, position):
        if position >= len(text) or (text[position] in "\r\n" and len(quote) == 1):
            raise InvalidExpression(at, "a string without its end", f"It ends with {quote}.")
        escaped = text[position] == "\\" and not prefix
        character, after = _escape(text, position) if escaped else (text[position], position + 1)
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise InvalidExpression(position, "a character that no text can hold")
        parts.append(character)
        position = after
    return _Token(at, "string", "".join(parts)), position + len(quote)


_ESCAPE = re.compile(r"\\(?:([abfnrtv\\?\"'`])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2}))")
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_LAST_CODE = 0x10FFFF


def _escape(text: str, at: int) -> tuple[str, int]:
    match = _ESCAPE.match(text, at)
    if match is None:
        raise InvalidExpression(at, f"{text[at : at + 2]!r} is no escape", r"A backslash is written \\.")
    simple, *codes = match.groups()
    if simple:
        return _SIMPLE.get(simple, simple), match.end()
    *hexadecimal, octal = codes
    code = int(octal, 8) if octal else int(next(filter(None, hexadecimal)), 16)
    if code > _LAST_CODE:
        raise InvalidExpression(at, "a character beyond Unicode")
    return chr(code), match.end()


# --- sentences ---

_RELATIONS = ("<", "<=", ">", ">=", "==", "!=", "in")
_LEVELS = (_RELATIONS, ("+", "-"), ("*", "/", "%"))
"""Of operators with two sides, the loosest first; all of them bind to the left."""


class _Parser:
    """Recursive descent. Neither it nor the tree gets deeper than MOST_DEPTH, so that no text exhausts a stack."""

    def __init__(self, text: str) -> None:
        self._tokens, self._position, self._depth = _tokens(text), 0, 0
        self._heights: dict[int, int] = {}

    def parsed(self) -> Node:
        if self._next.kind == "end":
            raise InvalidExpression(0, "nothing is written here", "Write what must be true.")
        node = self._choice()
        if self._next.kind != "end":
            self._unexpected()
        return node

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _sign(self, token: _Token) -> str:
        return str(token.value) if token.kind == "name" and token.value == "in" else token.kind

    def _taken(self, *kinds: str) -> _Token | None:
        """The next token where it is one of these."""
        token = self._next
        if self._sign(token) not in kinds:
            return None
        self._position += 1
        return token

    def _expected(self, kind: str) -> _Token:
        return self._taken(kind) or self._unexpected(f"{kind!r} is missing before ")

    def _unexpected(self, before: str = "") -> NoReturn:
        token = self._next
        if token.kind == "end":
            raise InvalidExpression(token.at, f"{before}the end" if before else "it ends too early")
        shown = token.value if token.kind == "name" else "a string" if token.kind == "string" else None
        shown = repr(str(token.value) if token.kind == "number" else token.kind) if shown is None else shown
        raise InvalidExpression(token.at, f"{before}{shown}" if before else f"{shown} does not belong here")

    def _made(self, node: N, *below: Node) -> N:
        """The node, with what is below it."""
        height = 1 + max((self._heights.get(id(each), 0) for each in below), default=0)
        if height > MOST_DEPTH:
            raise InvalidExpression(node.at, f"nested deeper than {MOST_DEPTH}", _DIVIDE)
        self._heights[id(node)] = height
        return node

    def _deeper(self, parse: Callable[[], T]) -> T:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise InvalidExpression(self._next.at, f"nested deeper than {MOST_DEPTH}", _DIVIDE)
        found = parse()
        self._depth -= 1
        return found

    def _choice(self) -> Node:
        condition = self._either()
        sign = self._taken("?")
        if sign is None:
            return condition
        then = self._deeper(self._either)
        self._expected(":")
        otherwise = self._deeper(self._choice)
        return self._made(Choice(sign.at, condition, then, otherwise), condition, then, otherwise)

    def _either(self) -> Node:
        return self._chain("||", self._both)

    def _both(self) -> Node:
        return self._chain("&&", self._binary)

    def _chain(self, operator: str, below: Callable[[], Node]) -> Node:
        first, operands = self._next, [below()]
        while self._taken(operator):
            operands.append(below())
        if len(operands) == 1:
            return operands[0]
        return self._made(Chain(first.at, operator, tuple(operands)), *operands)

    def _binary(self, level: int = 0) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        node = self._binary(level + 1)
        while sign := self._taken(*_LEVELS[level]):
            right = self._binary(level + 1)
            node = self._made(Binary(sign.at, self._sign(sign), node, right), node, right)
        return node

    def _unary(self) -> Node:
        sign = self._taken("!", "-")
        if sign is None:
            return self._postfix()
        operand = self._deeper(self._unary)
        if sign.kind == "-" and isinstance(operand, Literal) and type(operand.value) is int:
            return Literal(sign.at, -operand.value)
        return self._made(Unary(sign.at, sign.kind, operand), operand)

    def _postfix(self) -> Node:
        node = self._primary()
        while sign := self._taken(".", "["):
            node = self._member(node) if sign.kind == "." else self._index(sign, node)
        return node

    def _member(self, of: Node) -> Node:
        name = self._name()
        if self._taken("("):
            arguments = self._until(")")
            return self._made(Call(name.at, of, str(name.value), arguments), of, *arguments)
        return self._made(Member(name.at, of, str(name.value)), of)

    def _index(self, sign: _Token, of: Node) -> Node:
        key = self._deeper(self._choice)
        self._expected("]")
        return self._made(Index(sign.at, of, key), of, key)

    def _primary(self) -> Node:
        if token := self._taken("number", "string"):
            return Literal(token.at, token.value)
        if self._taken("("):
            node = self._deeper(self._choice)
            self._expected(")")
            return node
        if token := self._taken("["):
            elements = self._until("]")
            return self._made(Elements(token.at, elements), *elements)
        if self._next.kind == "{":
            raise InvalidExpression(self._next.at, "a map made on the spot", "A rule compares what it sees.")
        return self._named()

    def _named(self) -> Node:
        token = self._name()
        name = str(token.value)
        if name in ("true", "false"):
            return Literal(token.at, name == "true")
        if name == "null":
            raise InvalidExpression(token.at, "null", "Everything that a rule sees is there.")
        if name in _RESERVED:
            raise InvalidExpression(token.at, f"{name!r} is a word that CEL keeps for itself", "Take another name.")
        if self._taken("("):
            arguments = self._until(")")
            return self._made(Call(token.at, None, name, arguments), *arguments)
        if self._next.kind == "{":
            raise InvalidExpression(self._next.at, "a message made on the spot", "A rule compares what it sees.")
        return Name(token.at, name)

    def _name(self) -> _Token:
        token = self._next
        if token.kind != "name" or token.value == "in":
            self._unexpected()
        self._position += 1
        return token

    def _until(self, end: str) -> tuple[Node, ...]:
        """Expressions with commas between them, up to the sign that ends them; CEL allows a comma behind the last."""
        found: list[Node] = []
        while not self._taken(end):
            found.append(self._deeper(self._choice))
            if not self._taken(","):
                self._expected(end)
                break
        return tuple(found)
