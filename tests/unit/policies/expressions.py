"""Random expressions and summaries for the tests of rules, and what an expression means, worked out another way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from functools import partial
from typing import Any, NamedTuple

from hypothesis import strategies as st

from attestation.capabilities import CAPABILITIES
from attestation.coverage import Cutting, Grade, Guarantee, Mechanism, Profile
from attestation.layers import Layer
from attestation.proxy import Known
from policies.model import seen
from policies.model.cel import syntax
from policies.model.cel.check import MOST_COST, checked
from policies.model.cel.functions import FUNCTIONS
from policies.model.cel.syntax import MOST_NUMBER, InvalidExpression, Node
from policies.model.seen import Summary

TEXTS = ("", "a", "web", "1.40.0", "1.9.0-rc.1", "10.0.0.0/8", "10.1.2.3", "::1", "/usr/bin/é\U0001f600", 'quoted "\\')
NUMBERS = (0, 1, -1, 2, 64, 1000, MOST_NUMBER, -MOST_NUMBER)
DIGESTS = ("a" * 64, "b" * 64)

numbers = st.sampled_from(NUMBERS) | st.integers(-5, 5)
texts = st.sampled_from(TEXTS)
digests = st.sampled_from((*DIGESTS, ""))
ages = st.sampled_from((*seen.AGES, seen.OLDEST))
counts = st.integers(0, 3) | st.just(MOST_NUMBER)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- summaries ---

kinds = st.builds(
    seen.Kind,
    executable=texts,
    digest=digests,
    loader=texts,
    loader_digest=digests,
    uid=counts,
    gid=counts,
    capabilities=st.lists(st.sampled_from(CAPABILITIES[:3]), unique=True).map(tuple),
    no_new_privileges=st.booleans(),
    seccomp=st.sampled_from(seen.SECCOMP),
    deleted=st.booleans(),
)
collectors = st.builds(
    seen.Collector,
    name=texts,
    layer=st.sampled_from(Layer),
    mechanism=st.sampled_from(Mechanism),
    latency=ages,
    running=st.booleans(),
    lost=counts,
)
summaries = st.builds(
    Summary,
    registration=st.builds(
        seen.Registration,
        name=texts,
        namespace=texts,
        labels=st.dictionaries(st.sampled_from(("team", "version", "net")), texts),
        spiffe_id=st.just("spiffe://example.org/web"),
    ),
    files=st.builds(
        seen.Files,
        measured=st.booleans(),
        age=ages,
        full_age=ages,
        digest=digests,
        **dict.fromkeys(("count", "links", "folders", "others", "setuid", "world_writable"), counts),
    ),
    processes=st.builds(
        seen.Processes,
        measured=st.booleans(),
        age=ages,
        full_age=ages,
        digest=digests,
        root=counts,
        privileged=counts,
        kinds=st.lists(kinds, max_size=3).map(tuple),
    ),
    proxy=st.builds(
        seen.Proxy,
        measured=st.booleans(),
        age=ages,
        full_age=ages,
        seated=st.booleans(),
        executable=digests,
        version=texts,
        delivered=st.sampled_from(("sds", "xds", "")),
        denial=st.sampled_from(("in-force", "missing", "")),
        filters=st.lists(texts, max_size=3).map(tuple),
        **dict.fromkeys(("traced", "dumpable", "drains_at_once", "resumption_off"), st.sampled_from(Known)),
    ),
    memory=st.builds(
        seen.Memory,
        measured=st.booleans(),
        age=ages,
        full_age=ages,
        digest=digests,
        **dict.fromkeys(("files", "compilers", "writable", "patched"), counts),
    ),
    calls=st.builds(
        seen.Calls,
        measured=st.booleans(),
        age=ages,
        full_age=ages,
        digest=digests,
        watching=st.sampled_from(seen.WATCHING),
        made=st.lists(st.sampled_from(("read", "execve", "unknown")), unique=True).map(tuple),
        **dict.fromkeys(("rate", "peak", "events", "outside"), counts),
    ),
    coverage=st.builds(
        seen.Coverage,
        grade=st.sampled_from(Grade),
        cutting=st.sampled_from(Cutting),
        profile=st.sampled_from(Profile),
        isolation=st.lists(st.sampled_from(Guarantee), unique=True).map(tuple),
        absent=st.lists(st.sampled_from(Layer), unique=True).map(tuple),
        collectors=st.lists(collectors, max_size=3).map(tuple),
    ),
)


def largest() -> Summary:
    """As much of everything as a rule can see."""
    text = "é" * seen.MOST_STRING
    kind = seen.Kind(text, DIGESTS[0], text, DIGESTS[0], 1, 1, CAPABILITIES, True, "filter", False)
    collector = seen.Collector(text, Layer.FILES, Mechanism.POLL, 1, running=True, lost=0)
    return Summary(
        registration=seen.Registration(
            "web", "default", {f"l{n}": text for n in range(64)}, "spiffe://example.org/web"
        ),
        files=seen.Files(True, 1000, 1000, DIGESTS[0], *[MOST_NUMBER] * 6),
        processes=seen.Processes(True, 1000, 1000, DIGESTS[0], 0, 64, (kind,) * seen.MOST_KINDS),
        proxy=seen.Proxy(
            measured=True,
            age=1000,
            full_age=1000,
            seated=True,
            executable=DIGESTS[0],
            version="1.40.0",
            traced=Known.NO,
            dumpable=Known.NO,
            drains_at_once=Known.NO,
            delivered="xds",
            denial="in-force",
            filters=(text,) * seen.MOST_FILTERS,
            resumption_off=Known.NO,
        ),
        memory=seen.Memory(True, 1000, 1000, DIGESTS[0], *[MOST_NUMBER] * 4),
        calls=seen.Calls(True, 1000, 1000, DIGESTS[0], "strict", (text,) * seen.MOST_CALLS, *[MOST_NUMBER] * 4),
        coverage=seen.Coverage(
            Grade.CLOSED_BY_GUARDIAN,
            Cutting.DESTROY,
            Profile.CONTAINED,
            tuple(Guarantee),
            tuple(Layer),
            (collector,) * seen.MOST_COLLECTORS,
        ),
    )


# --- expressions: mostly of fitting types, so that most of them pass the check ---

_NUMBERS = (
    st.integers(0, 9).map(str),
    st.sampled_from(
        ("-1", "0x10", str(MOST_NUMBER), "files.count", "files.setuid", "processes.root", "processes.privileged")
    ),
    st.sampled_from(
        ("size(processes.kinds)", "proxy.filters.size()", "registration.labels.size()", "processes.kinds[0].uid")
    ),
    st.sampled_from(
        ('semver("1.2.3").minor()', 'ip("::1").family()', "semver(proxy.version).major()", "size(registration.name)")
    ),
    st.sampled_from(('semver(proxy.version).compareTo(semver("1.9.0"))', "ip(registration.labels.net).family()")),
)
_TEXTS = (
    texts.map(quoted),
    st.sampled_from(("registration.name", "proxy.version", "registration.labels.team", 'registration.labels["net"]')),
    st.sampled_from(
        ("registration.spiffeId.path()", "registration.spiffeId.trustDomain()", "processes.kinds[1].executable")
    ),
)
_DIGESTS = (
    st.sampled_from(DIGESTS).map(lambda digest: f'digest("sha256:{digest}")'),
    st.sampled_from(
        ("files.digest", "proxy.executable", "processes.kinds[0].digest", "digest(registration.labels.team)")
    ),
)
_PLAIN = st.sampled_from(
    (
        *(
            "true",
            "false",
            "files.measured",
            "proxy.seated",
            "has(registration.labels.team)",
            '"team" in registration.labels',
        ),
        *(
            'coverage.grade == "closed-by-guardian"',
            '"no-tracing" in coverage.isolation',
            'files.age <= duration("30s")',
        ),
        *('proxy.traced == "no"', '"a" in proxy.filters', "isSemver(proxy.version)", "isIP(registration.labels.net)"),
        'cidr("10.0.0.0/8").containsIP(ip(registration.labels.net))',
        'cidr(registration.labels.net).containsCIDR(cidr("10.0.0.0/8"))',
        'registration.spiffeId == spiffe("spiffe://example.org/web")',
        'semver(proxy.version).isLessThan(semver("1.40.0"))',
        *('registration.name.matches("^w[a-e]+b?$")', "isDigest(registration.name)", "isSpiffe(proxy.version)"),
        *("isCIDR(registration.labels.net)", 'ip(registration.labels.net) == ip("10.1.2.3")'),
        'semver(proxy.version).isGreaterThan(semver("1.9.0"))',
    )
)
_EACH = {
    "processes.kinds": st.sampled_from(
        (
            *("x.uid == 0", '"CAP_CHOWN" in x.capabilities', "x.noNewPrivileges", 'x.seccomp == "filter"', "x.deleted"),
            *('x.executable.startsWith("/usr")', f'x.digest == digest("{DIGESTS[0]}")', "x.uid / x.gid == 1"),
            'x.executable.matches("[a-z]+")',
        )
    ),
    "coverage.collectors": st.sampled_from(
        ('x.latency < duration("1s")', "x.running && x.lost == 0", 'x.layer == "files"')
    ),
    "proxy.filters": st.sampled_from(('x.contains("e")', 'x == "web"', 'x.endsWith("b") || x.size() > 3')),
    "[0, 1, 2]": st.sampled_from(("x > 0", "x == files.count", "1 / x == 1", "x % 2 == processes.root")),
}


def _number(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from("+-*/%"), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda each: f"-({each})"),
    )


numeric = st.recursive(st.one_of(_NUMBERS), _number, max_leaves=4)
textual = st.one_of(_TEXTS)
_compared = st.one_of(
    st.tuples(numeric, st.sampled_from(("==", "!=", "<", "<=", ">", ">=")), numeric).map(" ".join),
    st.tuples(textual, st.sampled_from(("==", "!=")), textual).map(" ".join),
    st.tuples(st.one_of(_DIGESTS), st.sampled_from(("==", "!=")), st.one_of(_DIGESTS)).map(" ".join),
    st.tuples(textual, st.sampled_from(("startsWith", "endsWith", "contains")), textual).map(
        lambda p: f"{p[0]}.{p[1]}({p[2]})"
    ),
    st.tuples(numeric, st.lists(numeric, min_size=1, max_size=3)).map(lambda p: f"{p[0]} in [{', '.join(p[1])}]"),
)
_macros = st.one_of(
    *(
        st.tuples(
            st.just(over), st.sampled_from(("all", "exists", "exists_one")), body, st.sampled_from(("", "!"))
        ).map(lambda parts: f"{parts[0]}.{parts[1]}(x, {parts[3]}({parts[2]}))")
        for over, body in _EACH.items()
    )
)


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(("&&", "||", "==", "!=")), inner).map(
            lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
        ),
        inner.map(lambda each: f"!({each})"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]}) ? ({parts[1]}) : ({parts[2]})"),
    )


def _passes(expression: str) -> bool:
    try:
        return checked(expression).cost <= MOST_COST
    except InvalidExpression as error:
        assert "might take too long" in error.what, error.sentence
        return False


expressions = st.recursive(_PLAIN | _compared | _macros, _joined, max_leaves=6).filter(_passes)


# --- what an expression means, by cel-spec's words ---


class Fails(Exception):
    """It has no value."""


def meaning(text: str, summary: Summary) -> bool | None:
    """None where it has none."""
    try:
        return bool(_valued(syntax.parse(text), Names.of(summary)))
    except Fails:
        return None


def steps(text: str, summary: Summary) -> int:
    """How many nodes are looked at until it has its value, or none."""
    names = Names.of(summary)
    with suppress(Fails):
        _valued(syntax.parse(text), names)
    return len(names.steps)


class Names(NamedTuple):
    """What names mean. steps: one for each node that was looked at."""

    known: Mapping[str, Any]
    steps: list[Node]

    @classmethod
    def of(cls, summary: Summary) -> Names:
        parts = ("registration", "files", "processes", "proxy", "coverage")
        return cls({name: getattr(summary, name) for name in parts}, [])

    def and_also(self, name: str, value: Any) -> Names:
        return Names({**self.known, name: value}, self.steps)


def _valued(node: Node, names: Names) -> Any:
    names.steps.append(node)
    match node:
        case syntax.Literal(_, value):
            return value
        case syntax.Name(_, name):
            return names.known[name]
        case syntax.Member(_, of, name):
            around = _valued(of, names)
            if is_dataclass(around):
                return getattr(around, re.sub("([A-Z])", lambda letter: "_" + letter[1].lower(), name))
            return _element(around, name)
        case syntax.Index(_, of, key):
            return _element(_valued(of, names), _valued(key, names))
        case syntax.Call():
            return _call(node, names)
        case syntax.Unary(_, "!", operand):
            return not _valued(operand, names)
        case syntax.Unary(_, _, operand):
            return _whole(-_valued(operand, names))
        case syntax.Binary(_, operator, left, right):
            return _binary(operator, _valued(left, names), _valued(right, names))
        case syntax.Chain(_, operator, operands):
            return _joined_values([partial(_valued, each, names) for each in operands], operator == "||")
        case syntax.Choice(_, condition, then, otherwise):
            return _valued(then if _valued(condition, names) else otherwise, names)
        case syntax.Elements(_, elements):
            return tuple(_valued(each, names) for each in elements)


def _element(around: Any, key: Any) -> Any:
    if isinstance(key, int) and key < 0:
        raise Fails
    try:
        return around[key]
    except LookupError as error:
        raise Fails from error


def _whole(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise Fails
    return number


def _binary(operator: str, left: Any, right: Any) -> Any:
    match operator:
        case "==":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
        case "in":
            return left in right
        case "+":
            return _whole(left + right)
        case "-":
            return _whole(left - right)
        case "*":
            return _whole(left * right)
    if right == 0:
        raise Fails
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return _whole(quotient) if operator == "/" else left - quotient * right


def _joined_values(operands: Sequence[Callable[[], Any]], decisive: bool) -> bool:
    """One that decides is enough, whatever becomes of the others."""
    failed = False
    for each in operands:
        try:
            if each() is decisive:
                return bool(decisive)
        except Fails:
            failed = True
    if failed:
        raise Fails
    return not decisive


def _call(call: syntax.Call, names: Names) -> Any:
    if call.name == "has":
        (asked,) = call.arguments
        assert isinstance(asked, syntax.Member)
        return bool(asked.name in _valued(asked.of, names))
    if call.of is not None and call.name in ("all", "exists", "exists_one"):
        variable, body = call.arguments
        assert isinstance(variable, syntax.Name)
        over = _valued(call.of, names)
        asked_of = [partial(_valued, body, names.and_also(variable.name, each)) for each in over]
        if call.name == "exists_one":
            return sum(map(bool, (each() for each in asked_of))) == 1
        return _joined_values(asked_of, call.name == "exists")
    given = [_valued(each, names) for each in ((call.of,) if call.of is not None else ()) + call.arguments]
    return _applied(call.name, given)


def _applied(name: str, given: list[Any]) -> Any:
    match name:
        case "size":
            return len(given[0].encode() if isinstance(given[0], str) else given[0])
        case "startsWith":
            return given[0].startswith(given[1])
        case "endsWith":
            return given[0].endswith(given[1])
        case "contains":
            return given[1] in given[0]
        case "matches":
            return re.search(given[1], given[0]) is not None
    (made,) = (each.made for each in FUNCTIONS.values() if each.name == name)
    assert made is not None
    try:
        return made(*given)
    except ValueError as error:
        raise Fails from error
