"""Whose act a thread of the loop is in, and how that act is taken away from it for good.

Each act is a token on a stack. Who takes the token out, the thread at the end of the act or somebody else meanwhile,
has it alone: taking an item from a list is one step of the interpreter. A thread that finds its token gone goes no
further.
"""

from __future__ import annotations

import time
from typing import Generic, TypeVar

L = TypeVar("L")
_UNTIL_TOLD = 0.01


class Superseded(BaseException):
    """Raised in a thread whose act was taken away, once it comes back from where it hung. No `except Exception` of an
    act's takes it for a failure of its own."""


class Driver(Generic[L]):
    """A thread that turns the loop, by what it does. L: who an act belongs to."""

    def __init__(self) -> None:
        self._acts: list[list[L]] = []

    def begin(self, whose: L) -> list[L]:
        """An act, perhaps within another one's. Gives its token."""
        token = [whose]
        self._acts.append(token)
        return token

    def end(self, token: list[L]) -> None:
        """The act is over. Does not return where it was taken away: Superseded is raised in here."""
        try:
            token.pop()
        except IndexError:
            while True:
                time.sleep(_UNTIL_TOLD)
        self._acts.pop()

    @property
    def within(self) -> list[L] | None:
        """The token of the innermost act; None between acts."""
        try:
            return self._acts[-1]
        except IndexError:
            return None

    def take(self, token: list[L]) -> tuple[L, ...]:
        """Take that act away. Gives all whose acts it is a part of, outermost first; nothing where it is over."""
        try:
            innermost = token.pop()
        except IndexError:
            return ()
        return (*(whose for act in self._acts for whose in act), innermost)
