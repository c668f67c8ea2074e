"""`volatile` patterns: which paths are left out of the measurement."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attestation.errors import InvalidConfiguration


class Volatile:
    """Globs over whole paths. `*` and `?` stop at '/', `**` does not; a match covers everything below it.

    A pattern beginning with '/' is matched from the workload's root, one with a '/' elsewhere at any depth, and one
    without '/' against the last name, as in .gitignore. Raises InvalidConfiguration for one that does not compile.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._expression: re.Pattern[bytes] | None = None
        if patterns:
            try:
                alternatives = b"|".join(_expression(pattern) for pattern in patterns)
                self._expression = re.compile(b"(?:" + alternatives + b")(?:/.*)?", re.DOTALL)
            except re.error as error:
                raise InvalidConfiguration(f"no valid glob ({error})", where="workload.files.volatile") from error

    def __bool__(self) -> bool:
        return self._expression is not None

    def covers(self, path: bytes) -> bool:
        """Is this absolute path volatile, or below something volatile?"""
        return self._expression is not None and self._expression.fullmatch(path) is not None


def _expression(pattern: str) -> bytes:
    text = pattern.rstrip("/").encode("utf-8", "surrogateescape")
    if not text:
        raise InvalidConfiguration("an empty pattern", where="workload.files.volatile", mend="Name what may change.")
    start = b"" if text.startswith(b"/") else b"/(?:.*/)?"
    return start + b"".join(_piece(each) for each in re.findall(rb"\*\*/|/\*\*$|\*\*|\[!?[^\]]+\]|.", text, re.DOTALL))


def _piece(token: bytes) -> bytes:
    fixed = {b"**/": b"(?:.*/)?", b"/**": b"/.*", b"**": b".*", b"*": b"[^/]*", b"?": b"[^/]"}
    if token in fixed:
        return fixed[token]
    if len(token) > 1:
        inside = token[1:-1]
        return b"[^" + inside[1:] + b"]" if inside.startswith(b"!") else b"[" + inside + b"]"
    return re.escape(token)
