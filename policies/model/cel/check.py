"""Is this expression one that can be run: known names, fitting types, bounded time?

Where rules run, the library that evaluates them is never shown what was written, but what was understood here, written
anew: one reading of a text, not two. Every type is known beforehand, so that the little that can still fail there is
known as well: a position that a list does not have, a label that is not there, a number beyond 64 bits, a division by
zero, a text that is no digest, address, network, version or SPIFFE ID.

The cost of an expression is a bound of its time, whatever the summary holds, in units of about a microsecond: what is
done for each element of a list counts as often as the list can have elements. Nothing makes a list or a text, and no
macro stands in another one, so that nothing grows.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from policies.model.cel import functions, syntax
from policies.model.cel.functions import CONSTRUCTORS, FUNCTIONS, Function
from policies.model.cel.syntax import InvalidExpression, Node
from policies.model.cel.types import BOOL, INT, SEMVER, STRING, ListOf, MapOf, Record, Scalar, Type, Words, record
from policies.model.seen import MOST_STRING, Summary

MOST_COST = 20_000
"""Of one expression."""

MACROS = ("all", "exists", "exists_one")
_OTHER_MACROS = ("map", "filter")
_EACH = "each"
"""The macro's variable where rules run. No place is called so: each has an underscore there."""
_ELEMENT_COST = 5
"""Of going on to the next element."""


@dataclass(frozen=True, slots=True)
class Checked:
    """An expression that holds or does not.

    run: what the library is to evaluate. seen: place in the summary (`files.count`) -> which fields of its elements,
    where it is a list of records. called: functions of ours in it.
    """

    run: str
    seen: Mapping[str, frozenset[str]]
    called: tuple[Function, ...]
    cost: int


@lru_cache(maxsize=4096)
def checked(text: str) -> Checked:
    """Raises InvalidExpression for what cannot be run, or might take too long."""
    checker = _Checker(record(Summary))
    found = checker.typed(syntax.parse(text))
    if found.type is not BOOL:
        raise InvalidExpression(found.at, f"this is {_a(found)}, no bool", "A rule says what must be true.")
    if found.cost > MOST_COST:
        raise InvalidExpression(0, f"it might take too long: {found.cost} units, of {MOST_COST}", _CHEAPER)
    seen = {place: frozenset(fields) for place, fields in checker.seen.items()}
    return Checked(found.run, seen, tuple(checker.called), found.cost)


def variable(place: str) -> str:
    """What a place is called where rules run."""
    return place.replace(".", "_")


_CHEAPER = "Look at fewer things for each element of a list, or make several rules of it."


@dataclass(frozen=True, slots=True)
class _Typed:
    """What a node is. place: of a part of the summary. of: the list that a record comes from. literal: its value."""

    at: int
    type: Type
    run: str
    cost: int = 1
    place: str = ""
    of: str = ""
    literal: bool | int | str | None = None
    elements: tuple[_Typed, ...] = ()


@dataclass(slots=True)
class _Checker:
    """One expression's check."""

    summary: Record
    seen: dict[str, set[str]] = field(default_factory=dict)
    called: dict[Function, None] = field(default_factory=dict)
    _each: tuple[str, _Typed] | None = None
    """The macro's variable, inside of one."""

    def typed(self, node: Node) -> _Typed:
        match node:
            case syntax.Literal(at, value):
                return _literal(at, value)
            case syntax.Name(at, name):
                return self._name(at, name)
            case syntax.Member(at, of, name):
                return self._member(at, self.typed(of), name)
            case syntax.Index(at, of, key):
                return self._index(at, self.typed(of), self._value(key))
            case syntax.Call():
                return self._call(node)
            case syntax.Unary(at, operator, operand):
                return _unary(at, operator, self._value(operand))
            case syntax.Binary(at, "in", left, right):
                return self._within(at, self._value(left), self.typed(right))
            case syntax.Binary(at, operator, left, right):
                return _binary(at, operator, self._value(left), self._value(right))
            case syntax.Chain(at, operator, operands):
                return _chain(at, operator, [self._value(each) for each in operands])
            case syntax.Choice(at, condition, then, otherwise):
                return _choice(at, self._value(condition), self._value(then), self._value(otherwise))
            case syntax.Elements(at, elements):
                return _elements(at, [self._value(each) for each in elements])

    def _value(self, node: Node) -> _Typed:
        """Something that can be compared: no part of the summary, no list, no map."""
        found = self.typed(node)
        if isinstance(found.type, (Scalar, Words)):
            return found
        mend = f"Name one of its fields: {', '.join(found.type.fields)}." if isinstance(found.type, Record) else ""
        raise InvalidExpression(found.at, f"{_a(found)} is no single value", mend)

    # --- what is looked at ---

    def _name(self, at: int, name: str) -> _Typed:
        if self._each is not None and name == self._each[0]:
            return replace(self._each[1], at=at)
        if name in self.summary.fields:
            return _Typed(at, self.summary.fields[name].type, "", place=name)
        known = [*self.summary.fields, *((self._each[0],) if self._each else ())]
        raise InvalidExpression(at, f"unknown name {name!r}", _nearest(name, known))

    def _member(self, at: int, of: _Typed, name: str) -> _Typed:
        if isinstance(of.type, MapOf):
            return replace(of, at=at, type=STRING, run=f"{of.run}[{_quoted(name)}]", cost=of.cost + 1, place="")
        if not isinstance(of.type, Record):
            raise InvalidExpression(at, f"{_a(of)} has no field {name!r}")
        if name not in of.type.fields:
            known = list(of.type.fields)
            raise InvalidExpression(at, f"{_a(of)} has no field {name!r}", _nearest(name, known))
        kind = of.type.fields[name].type
        if of.of:
            self.seen[of.of].add(name)
            return _Typed(at, kind, f"{of.run}.{name}", of.cost + 1)
        place = f"{of.place}.{name}"
        if not isinstance(kind, Record):
            self.seen.setdefault(place, set())
        # The library copies a list wherever it is named.
        most = kind.most if isinstance(kind, (ListOf, MapOf)) else 0
        return _Typed(at, kind, variable(place), 1 + most // 4, place=place)

    def _index(self, at: int, of: _Typed, key: _Typed) -> _Typed:
        wanted = STRING if isinstance(of.type, MapOf) else INT if isinstance(of.type, ListOf) else None
        if wanted is None:
            raise InvalidExpression(at, f"{_a(of)} has no elements")
        _must(key, wanted, f"the key of {_a(of)}")
        element = of.type.element if isinstance(of.type, ListOf) else STRING
        return _Typed(at, element, f"{of.run}[{key.run}]", of.cost + key.cost + 1, of=of.place)

    def _within(self, at: int, left: _Typed, right: _Typed) -> _Typed:
        run = f"({left.run} in {right.run})"
        match right.type:
            case MapOf():
                _must(left, STRING, f"a key of {_a(right)}")
                return _Typed(at, BOOL, run, left.cost + right.cost + 1)
            case ListOf(element, most):
                for each in right.elements or (replace(right, type=element, literal=None, elements=()),):
                    _comparable(at, left, each)
                return _Typed(at, BOOL, run, left.cost + right.cost + 1 + most // 4)
        raise InvalidExpression(at, f"{_a(right)} has no elements", "On the right of `in` stands a list or a map.")

    # --- what is called ---

    def _call(self, call: syntax.Call) -> _Typed:
        if call.of is None and call.name == "has":
            return self._has(call)
        if call.of is not None and call.name in (*MACROS, *_OTHER_MACROS):
            return self._macro(call, call.of)
        if call.name == "size":
            return self._size(call)
        of = self._value(call.of) if call.of is not None else None
        function = _function(call, of)
        given = [self._value(each) for each in call.arguments]
        if len(given) != len(function.parameters):
            raise InvalidExpression(call.at, f"{function.signature} is called with {len(given)}")
        for argument, wanted in zip(given, function.parameters, strict=True):
            _must(argument, wanted, f"what {call.name} is called with")
        return self._called(call.at, function, [*((of,) if of is not None else ()), *given])

    def _called(self, at: int, function: Function, given: Sequence[_Typed]) -> _Typed:
        cost = function.cost + sum(each.cost for each in given)
        if function.made is None:
            of, argument = given
            if function.name == "matches":
                cost += _pattern_cost(argument)
            return _Typed(at, function.result, f"{of.run}.{function.name}({argument.run})", cost)
        if len(given) == 1 and isinstance(given[0].literal, str):
            return _made(at, function, given[0])
        if function.name == "duration":
            raise InvalidExpression(given[0].at, "a duration is written where it is used", 'As in duration("60s").')
        self.called[function] = None
        return _Typed(at, function.result, f"{function.run_as}({', '.join(each.run for each in given)})", cost)

    def _has(self, call: syntax.Call) -> _Typed:
        match call.arguments:
            case (syntax.Member(at, of, name),):
                around = self.typed(of)
                if isinstance(around.type, MapOf):
                    return _Typed(call.at, BOOL, f"({_quoted(name)} in {around.run})", around.cost + 2)
                self._member(at, around, name)
                raise InvalidExpression(call.at, f"{name!r} is always there", "`has` asks for a label.")
        raise InvalidExpression(call.at, "`has` asks for one label", "As in has(registration.labels.team).")

    def _size(self, call: syntax.Call) -> _Typed:
        given = [*((call.of,) if call.of is not None else ()), *call.arguments]
        found = self.typed(given[0]) if len(given) == 1 else None
        if found is None or not (isinstance(found.type, (ListOf, MapOf)) or found.type is STRING):
            raise InvalidExpression(call.at, "`size` is of one list, map or string")
        return _Typed(call.at, INT, f"size({found.run})", found.cost + 1)

    def _macro(self, call: syntax.Call, of: Node) -> _Typed:
        if call.name in _OTHER_MACROS:
            raise InvalidExpression(call.at, f"`{call.name}` makes a list, and a rule makes none", _ASK)
        if self._each is not None:
            raise InvalidExpression(call.at, "a macro inside another one", "Ask for one list at a time.")
        over = self.typed(of)
        if not isinstance(over.type, ListOf):
            raise InvalidExpression(call.at, f"{_a(over)} is no list")
        match call.arguments:
            case (syntax.Name(at, name), condition):
                if name in self.summary.fields:
                    raise InvalidExpression(at, f"{name!r} means something already", "Take another name.")
                self._each = name, _Typed(at, over.type.element, _EACH, of=over.place)
                body = self._value(condition)
                self._each = None
                _must(body, BOOL, f"what `{call.name}` asks of each")
                cost = over.cost + over.type.most * (_ELEMENT_COST + body.cost)
                return _Typed(call.at, BOOL, f"{over.run}.{call.name}({_EACH}, {body.run})", cost)
        raise InvalidExpression(call.at, f"`{call.name}` takes a name and a condition", "As in list.all(x, x > 0).")


_ASK = "Ask with all, exists or exists_one."


def _function(call: syntax.Call, of: _Typed | None) -> Function:
    receiver = None
    if of is not None:
        receiver = of.type if isinstance(of.type, Scalar) else STRING
    found = FUNCTIONS.get((receiver, call.name))
    if found is not None:
        return found
    known = [name for kind, name in FUNCTIONS if kind == receiver]
    if of is None:
        raise InvalidExpression(
            call.at, f"unknown function {call.name!r}", _nearest(call.name, [*known, "has", "size"])
        )
    raise InvalidExpression(call.at, f"{_a(of)} has no function {call.name!r}", _nearest(call.name, known))


def _made(at: int, function: Function, argument: _Typed) -> _Typed:
    """A call with a literal, made here and now."""
    assert function.made is not None  # noqa: S101 - the caller looked
    try:
        return _literal(at, function.made(argument.literal), function.result)
    except ValueError as error:
        raise InvalidExpression(argument.at, str(error)) from error


def _pattern_cost(pattern: _Typed) -> int:
    """It is read anew each time, and runs over a text of at most MOST_STRING."""
    if not isinstance(pattern.literal, str):
        raise InvalidExpression(pattern.at, "a pattern is written where it is used")
    if fault := functions.pattern_fault(pattern.literal):
        raise InvalidExpression(pattern.at, fault)
    return len(pattern.literal) * (8 + MOST_STRING // 256)


# --- what is computed ---


def _literal(at: int, value: bool | int | str, kind: Scalar | None = None) -> _Typed:
    if isinstance(value, bool):
        return _Typed(at, BOOL, "true" if value else "false", literal=value)
    if isinstance(value, int):
        return _Typed(at, kind or INT, str(value) if value >= 0 else f"({value})", literal=value)
    if len(value) > MOST_STRING:
        raise InvalidExpression(at, f"a string of more than {MOST_STRING} characters")
    return _Typed(at, kind or STRING, _quoted(value), literal=value)


def _unary(at: int, operator: str, operand: _Typed) -> _Typed:
    if operator == "!":
        _must(operand, BOOL, "what `!` turns round")
        return _Typed(at, BOOL, f"(!{operand.run})", operand.cost + 1)
    _must(operand, INT, "what has a sign")
    # The library lets the least number wrap round when its sign is turned, but not when it is subtracted.
    return _Typed(at, INT, f"(0 - {operand.run})", operand.cost + 1)


def _binary(at: int, operator: str, left: _Typed, right: _Typed) -> _Typed:
    result = BOOL
    if operator in ("==", "!="):
        _comparable(at, left, right)
    elif operator in ("<", "<=", ">", ">="):
        _ordered(at, operator, left, right)
    else:
        result = INT
        for side in (left, right):
            _must(side, INT, f"what `{operator}` computes with")
    return _Typed(at, result, f"({left.run} {operator} {right.run})", left.cost + right.cost + 1)


def _ordered(at: int, operator: str, left: _Typed, right: _Typed) -> None:
    if left.type == right.type and isinstance(left.type, Scalar) and left.type.order:
        return
    one = next((side for side in (left, right) if side.type not in (INT,)), left)
    mends = {SEMVER: "Versions have isLessThan and isGreaterThan.", STRING: 'Versions are compared as semver("1.2.3").'}
    mend = mends.get(one.type, "") if isinstance(one.type, Scalar) else ""
    raise InvalidExpression(at, f"`{operator}` does not compare {_a(left)} with {_a(right)}", mend)


def _chain(at: int, operator: str, operands: Sequence[_Typed]) -> _Typed:
    for each in operands:
        _must(each, BOOL, f"what `{operator}` joins")
    run = f" {operator} ".join(each.run for each in operands)
    return _Typed(at, BOOL, f"({run})", sum(each.cost for each in operands) + len(operands))


def _choice(at: int, condition: _Typed, then: _Typed, otherwise: _Typed) -> _Typed:
    _must(condition, BOOL, "what stands before `?`")
    if then.type != otherwise.type:
        raise InvalidExpression(at, f"it is {_a(then)} or {_a(otherwise)}", "Both sides of `:` are of one type.")
    run = f"({condition.run} ? {then.run} : {otherwise.run})"
    return _Typed(at, then.type, run, condition.cost + max(then.cost, otherwise.cost) + 1)


def _elements(at: int, elements: Sequence[_Typed]) -> _Typed:
    if not elements:
        raise InvalidExpression(at, "a list of nothing")
    first, *others = elements
    for each in others:
        if each.type != first.type:
            raise InvalidExpression(each.at, f"{_a(each)} beside {_a(first)}", "A list's elements are of one type.")
    run = f"[{', '.join(each.run for each in elements)}]"
    cost = sum(each.cost for each in elements) + 1
    return _Typed(at, ListOf(first.type, len(elements)), run, cost, elements=tuple(elements))


# --- what fits together ---


def _comparable(at: int, one: _Typed, other: _Typed) -> None:
    """Raises where the two can never be equal, or where their being so would mean nothing."""
    if one.type == other.type:
        if one.type in (SEMVER,):
            raise InvalidExpression(at, "versions are not compared so", "They have compareTo.")
        return
    for words, literal in ((one, other), (other, one)):
        if isinstance(words.type, Words) and isinstance(literal.literal, str) and literal.type is STRING:
            if literal.literal not in words.type.known:
                mend = _nearest(literal.literal, [each for each in words.type.known if each])
                raise InvalidExpression(literal.at, f"{literal.literal!r} is never there", mend)
            return
    for form, text in ((one, other), (other, one)):
        if isinstance(form.type, Scalar) and form.type in CONSTRUCTORS and text.type is STRING:
            raise InvalidExpression(text.at, f"a string beside {_a(form)}", f"Write {CONSTRUCTORS[form.type]}(...).")
    raise InvalidExpression(at, f"{_a(one)} is never {_a(other)}")


def _must(found: _Typed, wanted: Scalar, what: str) -> None:
    if found.type == wanted or (wanted is STRING and isinstance(found.type, Words)):
        return
    mend = f"Write {CONSTRUCTORS[wanted]}(...)." if wanted in CONSTRUCTORS and found.type is STRING else ""
    raise InvalidExpression(found.at, f"{what} must be {_named(wanted)}, and this is {_a(found)}", mend)


def _a(found: _Typed) -> str:
    """As a message calls it."""
    if found.place:
        return f"`{found.place}` ({_kind(found.type)})"
    return _named(found.type)


def _kind(kind: Type) -> str:
    if isinstance(kind, Record):
        return "several fields"
    if isinstance(kind, Words):
        return "string"
    return "list" if isinstance(kind, ListOf) else "map" if isinstance(kind, MapOf) else kind.name


def _named(kind: Type) -> str:
    name = _kind(kind)
    return name if name == "several fields" else f"{'an' if name[0] in 'iI' else 'a'} {name}"


def _nearest(name: str, known: Iterable[str]) -> str:
    options = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(options) or 'none'}."


def _quoted(text: str) -> str:
    return f'"{"".join(_escaped(each) for each in text)}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
