"""What a command says to people while it works: a line at a time."""

from __future__ import annotations

import time
from typing import TextIO


class Telling:
    """Lines for people, each with the seconds since the first."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f}s  {text}", file=self._out, flush=True)


def counted(number: int, what: str) -> str:
    """With its noun in the right number."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
