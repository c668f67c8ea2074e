"""What a rule may say: known names, fitting types, bounded time; and what is refused, to the character."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.appraise.rules import evaluate
from policies.author.confined import LIMITS, evaluate_confined
from policies.model.cel.check import MOST_COST, checked
from policies.model.cel.functions import FUNCTIONS, MOST_PATTERN, pattern_fault
from policies.model.cel.syntax import MOST_CHARACTERS, MOST_DEPTH, MOST_TOKENS, InvalidExpression
from policies.model.cel.types import SEMVER, ListOf, MapOf, Record, record
from policies.model.rules import MOST_TOTAL_COST, Rule
from policies.model.seen import Summary
from tests.unit.policies.expressions import expressions, largest, meaning, steps, summaries

HERE = "▸"
"""Stands before the character that is at fault."""
DIGEST = "sha256:" + "a" * 64


def refused(marked: str) -> InvalidExpression:
    """The fault, which is where the mark is."""
    with pytest.raises(InvalidExpression) as caught:
        checked(marked.replace(HERE, ""))
    assert caught.value.at == marked.index(HERE), caught.value.sentence
    return caught.value


REFUSED = {
    # Names.
    "▸proceses.root == 0": "unknown name 'proceses'. Did you mean 'processes'?",
    "processes.▸rot == 0": "has no field 'rot'. Did you mean 'root'?",
    "processes.kinds.all(p, p.▸gids == 0)": "has no field 'gids'. Did you mean 'gid'?",
    "processes.kinds.all(p, p.uid == 0) && ▸p.uid == 0": "unknown name 'p'",
    "▸semvr('1.0.0') == files.count": "unknown function 'semvr'. Did you mean 'semver'?",
    "files.count.▸startsWith('a')": "has no function 'startsWith'",
    "coverage.grade == ▸'closed-by-gardian'": "is never there. Did you mean 'closed-by-guardian'?",
    "!(▸'no-trace' in coverage.isolation)": "is never there. Did you mean 'no-tracing'?",
    # Types.
    "files.▸count": "no bool",
    "▸files": "`files` (several fields), no bool",
    "files.count == processes.▸kinds": "`processes.kinds` (list) is no single value",
    "files.count ▸== 'a'": "`files.count` (int) is never a string",
    "proxy.version ▸>= '1.9'": 'Versions are compared as semver("1.2.3")',
    "semver(proxy.version) ▸> semver('1.9.0')": "isLessThan and isGreaterThan",
    "semver(proxy.version) ▸== semver('1.9.0')": "They have compareTo",
    f"proxy.executable == ▸'{DIGEST}'": "Write digest(...)",
    "registration.spiffeId == ▸'spiffe://example.org/web'": "Write spiffe(...)",
    "files.age ▸< 60": "does not compare `files.age` (duration) with an int",
    "files.▸age + 1 > 0": "must be an int",
    "files.▸count && true": "what `&&` joins must be a bool",
    "!files.▸count": "must be a bool",
    "true ▸? 1 : 'a'": "Both sides of `:` are of one type",
    "files.count in [1, ▸'a']": "elements are of one type",
    "files.count in ▸[]": "a list of nothing",
    "files.count ▸in files.count": "has no elements",
    "registration.labels[▸1] == 'a'": "must be a string",
    "processes.kinds[▸'a'].uid == 0": "must be an int",
    "▸has(files.count)": "'count' is always there",
    "▸has(registration)": "asks for one label",
    "▸size(files.count) == 1": "of one list, map or string",
    "files.measured▸[0]": "has no elements",
    "processes.kinds.▸all(p)": "takes a name and a condition",
    "▸semver('1.0.0', '2.0.0').major() == 1": "is called with 2",
    # Values that could never be.
    "digest(▸'sha256:abc') == files.digest": "is no digest",
    "semver(▸'1.9') == files.count": "is no version",
    "ip(▸'300.1.1.1') == ip('::1')": "does not appear to be",
    "cidr(▸'10.0.0.1/8').containsIP(ip('::1'))": "has host bits set",
    "files.age < duration(▸'60')": "is not a duration",
    "files.age < duration(registration.▸name)": "a duration is written where it is used",
    "registration.spiffeId == spiffe(▸'https://example.org')": "is not a SPIFFE ID",
    # What makes things grow.
    "processes.kinds.all(p, p.capabilities.▸exists(c, c == 'CAP_CHOWN'))": "a macro inside another one",
    "processes.kinds.▸map(p, p.uid) == 1": "makes a list, and a rule makes none",
    "processes.kinds.▸filter(p, p.uid == 0).size() == 0": "Ask with all, exists or exists_one",
    "registration.▸name + 'a' == 'b'": "what `+` computes with must be an int",
    # Patterns.
    "registration.name.matches(registration.▸namespace)": "a pattern is written where it is used",
    "registration.name.matches(▸'(a{9}){9}')": "'{9' is no part of the patterns",
    "registration.name.matches(▸r'\\w+')": "is no part of the patterns",
    "registration.name.matches(▸'(?i)a')": "'(?' is no part of the patterns",
    "registration.name.matches(▸'[a&&b]')": "'[a' is no part of the patterns",
    "registration.name.matches(▸'[a--b]')": "'[a' is no part of the patterns",
    "registration.name.matches(▸'x[[:alpha:]]')": "'[[' is no part of the patterns",
    "registration.name.matches(▸'[]a]')": "'[]' is no part of the patterns",
    "registration.name.matches(▸r'\\<a')": "is no part of the patterns",
    "registration.name.matches(▸'é+')": "is no part of the patterns",
    "registration.name.matches(▸'(a')": "no regular expression",
    f"registration.name.matches(▸'{'a' * (MOST_PATTERN + 1)}')": "a pattern of more than",
    # Syntax.
    "▸": "nothing is written here",
    "files.count == ▸": "it ends too early",
    "files.count == 1 ▸)": "')' does not belong here",
    "(files.count == 1▸": "')' is missing before the end",
    "files.count ▸= 1": "'=' means nothing here",
    "files.count == ▸'abc": "a string without its end",
    "registration.name == '▸\\q'": "is no escape",
    "registration.name == '▸\\ud800'": "a character that no text can hold",
    "files.count == ▸99999999999999999999": "beyond 64 bits",
    "▸1.5 > 1": "a number with a fraction",
    "▸1u == 1": "an unsigned number",
    "▸b'a' == 'a'": "bytes",
    "▸null == 1": "null",
    "▸{'a': 1}.a == 1": "a map made on the spot",
    "[1].all(▸let, let == 1)": "a word that CEL keeps for itself",
    "[1].all(▸files, files == 1)": "means something already",
    "▸`a` == 1": "means nothing here",
}


@pytest.mark.parametrize("marked", REFUSED)
def test_what_cannot_be_run_is_refused_at_the_character_that_is_at_fault(marked: str) -> None:
    assert REFUSED[marked] in refused(marked).sentence


EXPLODING = {
    "deep parentheses": (f"{'(' * (MOST_DEPTH + 1)}▸true{')' * (MOST_DEPTH + 1)}", "nested deeper"),
    "deep negations": (f"{'!' * (MOST_DEPTH + 1)}▸true", "nested deeper"),
    "deep lists": (f"{'[' * (MOST_DEPTH + 1)}▸1{']' * (MOST_DEPTH + 1)} == 1", "nested deeper"),
    "endless sums": ("1" + " + 1" * MOST_DEPTH + " ▸== 1", "nested deeper"),
    "many words": ("true" + " && true" * (MOST_TOKENS // 2 - 1) + " && ▸true", "words and signs"),
    "long text": (f"'{'a' * (MOST_CHARACTERS - 1)}▸' == registration.name", "characters"),
    "long string": (f"registration.name == ▸'{'a' * 1025}'", "more than 1024 characters"),
    "many patterns": (
        "▸processes.kinds.all(p, p.executable.matches('" + "a" * MOST_PATTERN + "') || p.uid == 0)",
        "it might take too long",
    ),
    "a list for each element": (
        "▸processes.kinds.all(p, p.uid in [" + ", ".join("1" * 200) + "] || p.gid in [" + ", ".join("1" * 40) + "])",
        "it might take too long",
    ),
}


@pytest.mark.parametrize("name", EXPLODING)
def test_what_would_explode_is_refused_before_it_runs(name: str) -> None:
    marked, said = EXPLODING[name]
    assert said in refused(marked).sentence


# --- what may be said ---

EXAMPLES = {
    "startsWith": ['"/usr/bin/a".startsWith("/usr/")', '!"/opt".startsWith("/usr")'],
    "endsWith": ['"libc.so".endsWith(".so")'],
    "contains": ['"/usr/lib/x".contains("/lib/")'],
    "matches": ['"python3.11".matches("^python3[.][0-9]+$")', '!"ruby".matches("^p")', r'"a.b".matches(r"a\.b")'],
    "duration": ['duration("1m") == duration("60s")', 'duration("250ms") < duration("1s")'],
    "digest": [f'digest("{DIGEST}") == digest("{DIGEST[7:]}")'],
    "isDigest": [f'isDigest("{DIGEST}") && !isDigest("sha256:") && !isDigest("{DIGEST.upper()}")'],
    "ip": ['ip("10.0.0.1") != ip("10.0.0.2")', 'ip("2001:DB8::0:1") == ip("2001:db8::1")'],
    "isIP": [
        'isIP("::1") && !isIP("10.0.0") && !isIP("010.0.0.1") && !isIP("fe80::1%eth0") && !isIP("::ffff:1.2.3.4")'
    ],
    "family": ['ip("10.0.0.1").family() == 4 && ip("::1").family() == 6'],
    "cidr": ['cidr("10.0.0.0/8") == cidr("10.0.0.0/8")'],
    "isCIDR": ['isCIDR("10.0.0.0/8") && !isCIDR("10.0.0.1/8") && !isCIDR("10.0.0.0") && !isCIDR("10.0.0.0/255.0.0.0")'],
    "containsIP": ['cidr("10.0.0.0/8").containsIP(ip("10.9.9.9")) && !cidr("10.0.0.0/8").containsIP(ip("::1"))'],
    "containsCIDR": [
        'cidr("10.0.0.0/8").containsCIDR(cidr("10.1.0.0/16")) && !cidr("10.1.0.0/16").containsCIDR(cidr("10.0.0.0/8"))',
        '!cidr("10.0.0.0/8").containsCIDR(cidr("::/0"))',
    ],
    "semver": ['semver("1.2.3+build.5").compareTo(semver("1.2.3")) == 0'],
    "isSemver": ['isSemver("0.0.0") && !isSemver("1.2") && !isSemver("v1.2.3") && !isSemver("1.02.3")'],
    "major": ['semver("10.2.3").major() == 10'],
    "minor": ['semver("10.2.3").minor() == 2'],
    "patch": ['semver("10.2.3-rc.1").patch() == 3'],
    "compareTo": [
        'semver("1.10.0").compareTo(semver("1.9.0")) == 1 && semver("1.0.0").compareTo(semver("1.0.0")) == 0'
    ],
    "isLessThan": ['semver("1.9.0").isLessThan(semver("1.10.0"))'],
    "isGreaterThan": ['semver("2.0.0").isGreaterThan(semver("2.0.0-rc.1"))'],
    "spiffe": ['spiffe("spiffe://example.org/web") != spiffe("spiffe://example.org/api")'],
    "isSpiffe": ['isSpiffe("spiffe://example.org/web") && !isSpiffe("spiffe://example.org/a/../b")'],
    "trustDomain": ['spiffe("spiffe://example.org/web").trustDomain() == "example.org"'],
    "path": ['spiffe("spiffe://example.org/web").path() == "/web"'],
    "size": ['[1, 2].size() == 2 && size("abc") == 3', "size(registration.labels) == 0"],
    "has": ["!has(registration.labels.team) && !has(registration.labels.namespace)"],
    "in": ['!("team" in registration.labels) && 2 in [1, 2] && files.count in [files.count]'],
    "macros": ["[1, 2].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2].exists_one(x, x == 2)"],
    "operators": [
        "1 + 2 * 3 - 8 / 2 % 3 == 6",
        "!(1 == 2) && (1 < 2 || 1 / 0 == 1) && -(2) == -2 && 2 - -2 == 4",
        "true ? 0x10 == 16 : 1 / 0 == 1",
    ],
    "strings": [r""" 'a' == "a" && '''a"''' == r'a"' && '\x61' == 'a' && '\u00e9\n' == '\351\012' """],
    "comments": ["  1 == 1 // why\n && 2 == 2"],
}


@pytest.mark.parametrize("example", [each for examples in EXAMPLES.values() for each in examples])
def test_every_word_that_a_rule_knows_means_what_it_says(example: str) -> None:
    (outcome,) = evaluate({"rule": Rule(that=example, message="it is so")}, unlabelled())
    assert (outcome.holds, outcome.fault) == (True, "")


def unlabelled(**changes: Any) -> Summary:
    summary = largest()
    return replace(summary, registration=replace(summary.registration, labels={}, **changes))


def test_every_function_has_an_example() -> None:
    assert {name for _, name in FUNCTIONS} <= EXAMPLES.keys()


ORDERED_VERSIONS = (
    *("1.0.0-1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"),
    *("1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"),
)


def test_versions_are_ordered_as_semantic_versioning_orders_them() -> None:
    compare = FUNCTIONS[SEMVER, "compareTo"].made
    assert compare is not None
    for one, version in enumerate(ORDERED_VERSIONS):
        for other, another in enumerate(ORDERED_VERSIONS):
            assert compare(version, another) == (one > other) - (one < other)


def test_every_field_of_the_summary_can_be_looked_at_and_says_what_it_means() -> None:
    for part, around in record(Summary).fields.items():
        assert isinstance(around.type, Record)
        for name, field in around.type.fields.items():
            assert field.meaning
            sized = isinstance(field.type, ListOf | MapOf)
            looked = f"size({part}.{name}) >= 0" if sized else f"{part}.{name} == {part}.{name}"
            assert checked(looked).seen == {f"{part}.{name}": frozenset()}


# --- whatever is said ---


@given(expressions, summaries)
@settings(max_examples=300, deadline=None)
def test_a_rule_holds_only_where_another_reading_of_cel_says_so(expression: str, summary: Summary) -> None:
    (outcome,) = evaluate({"rule": Rule(that=expression, message="it is so")}, summary)
    assert outcome.fault or outcome.holds is meaning(expression, summary)
    assert not (outcome.fault and outcome.holds)


WRITTEN = 3
"""Nodes that are written for one that is run and costs a unit, at most: `semver("1.2.3").minor()`, a number by then."""


@given(expressions)
@settings(max_examples=300, deadline=None)
def test_what_passes_the_check_takes_no_more_steps_than_its_cost_says_whatever_it_sees(expression: str) -> None:
    assert steps(expression, largest()) <= WRITTEN * checked(expression).cost


COSTLIEST = (
    "processes.kinds.exists(p, p.executable.matches('(a|b)*c[^x]*y') || p.uid == 0)",
    "proxy.filters.exists(f, isIP(f) || isCIDR(f) || isDigest(f) || isSpiffe(f) || isSemver(f))",
    "processes.kinds.exists(p, " + " || ".join(["'CAP_63' in p.capabilities && p.gid == 0"] * 8) + ")",
    "proxy.filters.exists(f, " + " || ".join(["f in proxy.filters && f == 'x'"] * 6) + ")",
    " && ".join(["registration.labels['l1'].matches('([^a][^b]*)([^a][^b]*)([^a][^b]*)') || true"] * 24),
)


@pytest.mark.parametrize("expression", COSTLIEST)
def test_the_costliest_that_passes_the_check_ends_in_time_too(expression: str) -> None:
    """As much of it as policies may state together, in the time of the processor that a trial has."""
    rule = Rule(that=expression, message="it is so")
    assert rule.checked.cost > MOST_COST / 2
    rules = {f"rule-{number}": rule for number in range(MOST_TOTAL_COST // rule.checked.cost)}
    outcomes = evaluate_confined(rules, largest(), replace(LIMITS, wall=60.0))
    assert [each.fault for each in outcomes] == [""] * len(rules)


_WORDS = st.sampled_from(
    [
        *(
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ".",
            ",",
            "?",
            ":",
            "!",
            "-",
            "&&",
            "||",
            "==",
            "<",
            "in",
            " ",
            "\n",
            "//",
            "'",
        ),
        *(
            '"',
            "\\",
            "\\x41",
            "r'",
            "b'",
            "0x",
            "9" * 30,
            "1e9",
            "all",
            "map",
            "has",
            "size",
            "x",
            "null",
            "true",
            "'''",
        ),
        *(
            "registration",
            "labels",
            "files",
            "count",
            "processes.kinds",
            "uid",
            "matches",
            "semver",
            "é",
            "\0",
            "\ud800",
        ),
    ]
)


@given(st.lists(_WORDS, max_size=30).map("".join) | st.text(max_size=60))
@settings(max_examples=400)
def test_any_text_at_all_is_checked_or_refused_at_a_place_in_it(text: str) -> None:
    try:
        assert checked(text).cost <= MOST_COST
    except InvalidExpression as error:
        assert 0 <= error.at <= len(text)


@given(st.text("ab.*+?|()[]^$-&~0 \\", max_size=12), st.text("ab0-&~[]\\ ", max_size=12))
@settings(max_examples=400, deadline=None)
def test_a_pattern_that_is_let_through_means_the_same_to_two_engines(pattern: str, text: str) -> None:
    if pattern_fault(pattern):
        return
    rule = Rule(that=f'registration.name.matches(r"{pattern}")', message="it is so")
    (outcome,) = evaluate({"rule": rule}, unlabelled(name=text))
    assert (outcome.fault, outcome.holds) == ("", re.search(pattern, text) is not None)
