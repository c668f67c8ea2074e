"""Rules, evaluated: each holds, does not hold, or cannot be evaluated, which is as bad.

Evaluated by common-expression-language, which runs what policies/model/cel/check.py has understood and bounded. The
library holds the interpreter meanwhile.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from attestation.errors import InvalidConfiguration
from attestation.layers import Layer
from attestation.quantities import duration
from attestation.signals import Signal
from attestation.violation import ViolationClass
from attestation.wording import shown
from policies.appraise.reasons import Finding
from policies.model.cel.check import variable
from policies.model.cel.functions import Function, Value
from policies.model.cel.syntax import MOST_NUMBER
from policies.model.cel.types import DURATION, STRING, Field, ListOf, MapOf, Record, Type, record
from policies.model.places import rule as placed
from policies.model.policy import AttestationPolicy
from policies.model.rules import Rule
from policies.model.seen import MOST_STRING, Summary

if TYPE_CHECKING:
    import cel


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rule. fault: why it could not be evaluated; it does not hold then. saw: what it looked at."""

    name: str
    holds: bool
    fault: str = ""
    saw: str = ""


class Evaluate(Protocol):
    """How rules are evaluated: here, or confined (policies/author/confined.py)."""

    def __call__(self, rules: Mapping[str, Rule], summary: Summary) -> Sequence[Outcome]: ...


def evaluate(rules: Mapping[str, Rule], summary: Summary) -> Sequence[Outcome]:
    """One outcome a rule, in the sequence of their names. Raises nothing, whatever the summary holds."""
    looked = _looked_at(rules.values(), summary)
    return [_outcome(name, rules[name], looked) for name in sorted(rules)]


def prepare(policy: AttestationPolicy) -> None:
    """Makes ready what evaluating takes, so that no round waits for it. Raises InvalidConfiguration."""
    for name, rule in policy.spec.rules.items():
        try:
            _program(rule.checked.run)
        except _FAILURES as error:
            raise InvalidConfiguration(
                f"spec.rules.{name}.that: the library that evaluates it refuses it ({error})",
                where=f"{policy.kind}/{policy.metadata.qualified}",
                mend="Write it more simply.",
            ) from error


def check_rules(policy: AttestationPolicy, outcomes: Iterable[Outcome]) -> list[Finding]:
    """What is found where rules do not hold."""
    return [_finding(each, policy.spec.rules[each.name], policy) for each in outcomes if not each.holds]


def _finding(outcome: Outcome, rule: Rule, policy: AttestationPolicy) -> Finding:
    false = f"it is false with {outcome.saw}" if outcome.saw else "it is false"
    return Finding(
        Signal.RULE_ERROR if outcome.fault else Signal.RULE_FAILED,
        ViolationClass.DRIFT if outcome.fault else rule.violation_class,
        rule.layer or Layer.ATTESTER,
        f"rule {outcome.name}",
        rule.message,
        f"it cannot be evaluated: {outcome.fault}" if outcome.fault else false,
        placed(policy, "rules", outcome.name),
        "Write it so that it can be evaluated whatever it sees." if outcome.fault else "Put right what it looks at.",
    )


# --- one after the other ---

_FAILURES = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError)
"""What the library raises."""
_SAID = {
    KeyError: "a label that is not there",
    IndexError: "an element that is not there",
    ZeroDivisionError: "a division by zero",
    OverflowError: "a number beyond 64 bits",
}


@dataclass(frozen=True, slots=True)
class _LookedAt:
    """faults: place -> why a rule cannot see what is there. refused: what functions of ours said, the latest last."""

    values: Mapping[str, Any]
    faults: Mapping[str, str]
    context: cel.Context
    refused: list[str]


def _outcome(name: str, rule: Rule, looked: _LookedAt) -> Outcome:
    checked = rule.checked
    unseen = next((fault for place in checked.seen if (fault := looked.faults.get(place))), "")
    if unseen:
        return Outcome(name, False, unseen)
    looked.refused.clear()
    try:
        holds = _program(checked.run).execute(looked.context) is True
    except _FAILURES as error:
        return Outcome(name, False, _SAID.get(type(error)) or next(reversed(looked.refused), type(error).__name__))
    return Outcome(name, holds, saw="" if holds else _saw(checked.seen, looked.values))


_MOST_SHOWN = 160


def _saw(places: Iterable[str], values: Mapping[str, Any]) -> str:
    told = (_told(place, values[place]) for place in places)
    return shown(", ".join(filter(None, told)), _MOST_SHOWN)


def _told(place: str, value: Any) -> str:
    """A single value, or how many a list has."""
    if isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return f"{len(value)} {place}"
    return f"{place} = {duration(value / 1000) if _at(place).type is DURATION else value}"


# --- what is looked at ---


class _Unseen(Exception):
    """A rule cannot see what is there."""


def _looked_at(rules: Iterable[Rule], summary: Summary) -> _LookedAt:
    """Of the summary just what these rules look at: handing a value to the library costs more than comparing it."""
    seen: dict[str, frozenset[str]] = {}
    called: dict[str, Callable[..., Value]] = {}
    refused: list[str] = []
    for rule in rules:
        for place, inner in rule.checked.seen.items():
            seen[place] = seen.get(place, frozenset()) | inner
        called |= {each.run_as: _guarded(each, refused) for each in rule.checked.called}
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for place, inner in seen.items():
        try:
            values[place] = _value(place, inner, summary)
        except _Unseen as unseen:
            faults[place] = f"{place} has {unseen}"
    named = {variable(place): value for place, value in values.items()}
    return _LookedAt(values, faults, _library().Context(named, called), refused)


def _guarded(function: Function, refused: list[str]) -> Callable[..., Value]:
    """The function, keeping what it says where it raises: the library only tells that it did."""
    made = function.made
    assert made is not None  # noqa: S101 - the check calls nothing else ours

    def guarded(*arguments: Value) -> Value:
        try:
            return made(*arguments)
        except ValueError as error:
            refused.append(str(error))
            raise

    return guarded


def _at(place: str) -> Field:
    """How a place is declared."""
    part, name = place.split(".")
    around = record(Summary).fields[part].type
    assert isinstance(around, Record)  # noqa: S101 - so are all its parts
    return around.fields[name]


def _value(place: str, inner: frozenset[str], summary: Summary) -> Any:
    """What the summary has there, as the library takes it. Raises _Unseen."""
    declared = _at(place)
    return _handed(getattr(getattr(summary, place.partition(".")[0]), declared.attribute), declared.type, inner)


def _handed(value: Any, kind: Type, inner: Iterable[str] = ()) -> Any:
    if isinstance(kind, ListOf):
        if len(value) > kind.most:
            raise _Unseen(f"{len(value)} entries, where a rule can see {kind.most}")
        return [_handed(each, kind.element, inner) for each in value]
    if isinstance(kind, MapOf):
        return {key: _handed(each, STRING) for key, each in value.items()}
    if isinstance(kind, Record):
        fields = ((name, kind.fields[name]) for name in inner)
        return {name: _handed(getattr(value, each.attribute), each.type) for name, each in fields}
    return _single(value)


def _single(value: bool | int | str) -> Value:
    if isinstance(value, str):
        if len(value) > MOST_STRING:
            raise _Unseen(f"a text of {len(value)} characters, where a rule can see {MOST_STRING}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _Unseen("a name that is no Unicode text") from error
        return str(value)
    if not -MOST_NUMBER <= value <= MOST_NUMBER:
        raise _Unseen("a number beyond 64 bits")
    return value


# --- the library ---


@lru_cache(maxsize=4096)
def _program(run: str) -> cel.Program:
    program: cel.Program = _library().compile(run)
    return program


@cache
def _library() -> ModuleType:
    """The library's compiled part alone.

    Its package imports a command line with it, which takes half a second and 34 MB; this takes 20 ms and 5 MB. Its log
    would only repeat what an outcome says.
    """
    package = importlib.util.find_spec("cel")
    folders = package.submodule_search_locations if package else None
    inside = importlib.machinery.PathFinder.find_spec("cel.cel", folders)
    if inside is None or inside.loader is None:
        raise ImportError("common-expression-language has no compiled part here", name="cel.cel")
    module = importlib.util.module_from_spec(inside)
    inside.loader.exec_module(module)
    logging.getLogger("cel").disabled = True
    return module
