"""Where a character of a text stands in the YAML that it was read from, however it is written there."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from policies.model import dialect
from policies.model.scalars import inside

HERE = "▸"
"""Stands in the YAML before the character that is looked for."""

WRITTEN = {
    "plain": ("a: some ▸text\n", 5),
    "plain over lines": ("a: some\n   more\n\n   ▸text\n", 10),
    "single quotes": ("a: 'it''s ▸text'\n", 5),
    "a quote itself": ("a: 'it▸''s text'\n", 2),
    "double quotes": ('a: "tab\\t\\x61\\u0062 ▸text"\n', 7),
    "double quotes over lines": ('a: "some\n  \\\n  more ▸text"\n', 10),
    "literal": ("a: |\n    some\n      ▸text\n", 7),
    "literal, stripped and commented": ("a: |- # why\n  some\n  ▸text\n", 5),
    "folded": ("a: >-\n  some\n  more\n\n  ▸text\n", 10),
    "literal with its indentation": ("a: |2\n    ▸text\n", 2),
    "tagged": ("a: !!str 'some ▸text'\n", 5),
    "nested": ("a:\n  - b: {c: 'some ▸text'}\n", 5),
    "after other documents": ("b: 1\n---\na: some ▸text\n", 5),
    "not Latin": ("a: 'é\u4e2d ▸text'\n", 3),
    "the end": ("a: some▸\n", 4),
    "the end of a literal": ("a: |\n  some▸\n", 5),
}


def scalar(written: str) -> yaml.ScalarNode:
    """The last one in it."""
    (*_, (_, node)) = dialect.parse(written, "text")
    while not isinstance(node, yaml.ScalarNode):
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return node


@pytest.mark.parametrize("style", WRITTEN)
def test_a_character_is_found_where_it_stands(style: str) -> None:
    marked, at = WRITTEN[style]
    before = marked[: marked.index(HERE)]
    mark = inside(scalar(marked.replace(HERE, "")), at)
    assert (mark.line, mark.column) == (before.count("\n"), len(before) - before.rfind("\n") - 1)


@given(
    st.text("ab'\"\\#: |>-{}[]&*!%@`,\té\n", min_size=1, max_size=40),
    st.sampled_from(["", "'", '"', "|", ">"]),
    st.integers(0, 39),
    st.integers(8, 40),
)
def test_whatever_a_text_is_and_however_it_is_written_the_same_character_stands_there(
    text: str, style: str, at: int, width: int
) -> None:
    assume(at < len(text) and not text[at].isspace())
    written = yaml.dump({"a": [{"b": text}]}, default_style=style, width=width, allow_unicode=True)
    node = scalar(written)
    assume(node.value == text)
    mark = inside(node, at)
    there = written.splitlines()[mark.line][mark.column :]
    escaped = {"'": ["'", "''"], '"': ['"', '\\"'], "\\": ["\\", "\\\\"]}.get(text[at], [text[at]])
    assert any(there.startswith(each) for each in escaped)
    assert re.sub(r"\s", "", text[:at]).count(text[at]) <= written[: mark.index].count(text[at])
