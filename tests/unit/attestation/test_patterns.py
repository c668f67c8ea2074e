"""Which paths a pattern covers, and that no path makes the question expensive."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.patterns import matches


@pytest.mark.parametrize(
    ("pattern", "covered", "left"),
    [
        ("*.log", ["/a.log", "/srv/x/a.log"], ["/a.log/b", "/srv/alog"]),
        ("/srv/*", ["/srv/a"], ["/srv/a/b", "/srv"]),
        ("/srv/**", ["/srv/a", "/srv/a/b"], ["/srv", "/srvx/a"]),
        ("/srv/**/cache/*", ["/srv/cache/a", "/srv/x/y/cache/a"], ["/srv/xcache/a", "/srv/cache/a/b"]),
        ("/srv/?/a*b", ["/srv/x/ab", "/srv/x/a--b"], ["/srv//ab", "/srv/xy/ab", "/srv/x/a/b"]),
        ("/srv/**", ["/srv/two\nlines"], []),
    ],
)
def test_a_star_stays_in_its_segment_and_two_cross_them(pattern: str, covered: list[str], left: list[str]) -> None:
    assert [path for path in covered if not matches(path, [pattern])] == []
    assert [path for path in left if matches(path, [pattern])] == []


pieces = st.lists(st.sampled_from(["a", "b", "?", "*", "**", "/", "/**/"]), min_size=1, max_size=9).map("".join)


@given(pieces.filter(lambda text: "***" not in text), st.text("ab/", max_size=10))
def test_looking_at_each_place_once_finds_what_looking_at_all_combinations_finds(pattern: str, path: str) -> None:
    assert matches("/" + path, [pattern]) == bool(_by_all_combinations(pattern).fullmatch("/" + path))


def test_a_path_made_to_fit_a_pattern_in_countless_ways_is_answered_all_the_same() -> None:
    assert not matches("/srv" + "/a" * 2000, ["/srv/**/a/**/a/**/a/**/a/**/b"])
    assert not matches("/" + "a" * 255, ["*a*a*a*a*a*a*a*a*b"])


def _by_all_combinations(pattern: str) -> re.Pattern[str]:
    anchored = pattern if pattern.startswith("/") else f"**/{pattern}"
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"(?:^|(?<=/))\*\*/|\*\*|.", anchored, re.DOTALL)
    return re.compile("".join(meaning.get(token, re.escape(token)) for token in tokens), re.DOTALL)
