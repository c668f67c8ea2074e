"""Glob patterns over absolute paths: `*` within a segment, `**` across segments, no slash means any folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=512)
def compiled(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    """One expression for all patterns; None for none. A pattern without a slash matches a name in any folder."""
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns))


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Does any pattern match the whole path?"""
    expression = compiled(tuple(patterns))
    return expression is not None and expression.fullmatch(path) is not None


def _expression(pattern: str) -> str:
    anchored = pattern if pattern.startswith("/") else f"**/{pattern}"
    out, position = [], 0
    while position < len(anchored):
        if anchored.startswith("**/", position):
            out.append("(?:.*/)?")
            position += 3
        elif anchored.startswith("**", position):
            out.append(".*")
            position += 2
        else:
            out.append(_SINGLE.get(anchored[position], re.escape(anchored[position])))
            position += 1
    return "".join(out)


_SINGLE = {"*": "[^/]*", "?": "[^/]"}
