"""Rules of policies, which tenants of an authority write."""

from __future__ import annotations

from policies.appraise.rules import evaluate
from policies.model.cel.check import MOST_COST, checked
from policies.model.cel.functions import FUNCTIONS
from policies.model.cel.syntax import MOST_CHARACTERS, InvalidExpression
from policies.model.rules import Rule
from tests.fuzz.target import Target
from tests.unit.policies.expressions import largest, meaning

SUMMARY = largest()


def expression(data: bytes) -> None:
    """What passes the check is taken by the library, and holds only where another reading of CEL says so."""
    text = data.decode("utf-8", "replace")
    try:
        assert checked(text).cost <= MOST_COST
    except InvalidExpression as error:
        assert 0 <= error.at <= len(text)
        return
    (outcome,) = evaluate({"one": Rule(that=text, message="it is so")}, SUMMARY)
    # Python's own engine for patterns is no match for what a mutation comes up with.
    assert outcome.fault or "matches" in text or outcome.holds is meaning(text, SUMMARY)


_SEEDS = (
    b"processes.root == 0 && processes.kinds.all(p, p.uid != 0 && !('CAP_SYS_ADMIN' in p.capabilities))",
    b"isSemver(proxy.version) && !semver(proxy.version).isLessThan(semver('1.36.0')) || proxy.traced == \"no\"",
    b"has(registration.labels.team) ? registration.labels.team in ['a', r'b', '\\u00e9'] : files.count % 0x10 >= -1",
    b"cidr('10.0.0.0/8').containsIP(ip(registration.labels[\"net\"])) // why\n&& files.age <= duration('30s')",
    b"proxy.filters.exists_one(f, f.matches('^[a-z]+(-[a-z]+)*$')) == (size(proxy.filters) > 1)",
    b"files.digest == digest('sha256:" + b"a" * 64 + b"') && registration.spiffeId.path().startsWith('/web')",
)
_NAMES = (
    *(
        "registration",
        "files",
        "processes",
        "proxy",
        "memory",
        "coverage",
        "kinds",
        "collectors",
        "isolation",
        "labels",
        "uid",
    ),
    *("all", "exists", "exists_one", "map", "filter", "has", "size", "in", "true", "false", "null", "let"),
    *(name for _, name in FUNCTIONS),
)

TARGETS = (
    Target(
        "rule",
        expression,
        lambda: _SEEDS,
        (
            *(name.encode() for name in _NAMES),
            b"&&",
            b"||",
            b"==",
            b"!=",
            b"<=",
            b"'''",
            b"\\U0010ffff",
            b"9" * 19,
            b"(",
        ),
        most_bytes=MOST_CHARACTERS + 64,
    ),
)
