"""Glob patterns over absolute paths: `*` within a segment, `**` across segments, no slash means any folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache


@lru_cache(maxsize=512)
def compiled(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    """One expression for all patterns; None for none. A pattern without a slash matches a name in any folder."""
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns), re.DOTALL)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Does any pattern match the whole path?"""
    expression = compiled(tuple(patterns))
    return expression is not None and expression.fullmatch(path) is not None


class Overlap:
    """The paths that every one of several lists of patterns matches. Of no list, or of an empty one, none."""

    __slots__ = ("_below", "_lists")

    def __init__(self, lists: Sequence[Sequence[str]]) -> None:
        self._lists = [compiled(tuple(each)) for each in lists]
        self._below = [compiled(tuple(pattern for pattern in each if pattern.endswith("**"))) for each in lists]

    def covers(self, path: str) -> bool:
        return _all_match(self._lists, path)

    def covers_all_below(self, folder: str) -> bool:
        """Is it certain of every path below this folder, whatever is put there?

        It is where one pattern of each list that ends with `**` has matched when the folder's name ends.
        """
        return _all_match(self._below, folder + "/")


def _all_match(expressions: Sequence[re.Pattern[str] | None], path: str) -> bool:
    matched = (each is not None and each.fullmatch(path) is not None for each in expressions)
    return bool(expressions) and all(matched)


def _expression(pattern: str) -> str:
    """The pattern as an expression whose time grows with the path's length, not with a power of it.

    Paths are the workload's to choose, so no wildcard may be tried in every combination with every other. What
    follows a wildcard is found where it first occurs and that is final (an atomic group): whatever a later
    occurrence would leave to the next wildcard, that one covers as well. Only the last wildcards look further,
    because what follows them must also reach the path's end.
    """
    anchored = pattern if pattern.startswith("/") else f"**/{pattern}"
    first, *others = _ACROSS.split(anchored)
    wildcards = [_FOLDERS if each.endswith("/") else _ANYTHING for each in _ACROSS.findall(anchored)]
    if not others:
        return _chunk(first, last=True)
    middle = [f"(?>{wildcard}{_chunk(chunk)})" for wildcard, chunk in zip(wildcards, others[:-1], strict=False)]
    return "".join([_chunk(first), *middle, wildcards[-1], _chunk(others[-1], last=True)])


def _chunk(text: str, *, last: bool = False) -> str:
    """What stands between two wildcards that cross segments. last: it must reach the end of the path."""
    head, *parts = (_literal(part) for part in text.split("*"))
    ends = [f"[^/]*{parts.pop()}"] if last and parts else []
    return "".join([head, *(f"(?>[^/]*?{part})" for part in parts), *ends])


def _literal(text: str) -> str:
    return "[^/]".join(re.escape(part) for part in text.split("?"))


_ACROSS = re.compile(r"(?:(?<=/)|^)\*{2,}/|\*{2,}")
_FOLDERS, _ANYTHING = "(?:.*?/)??", ".*?"
