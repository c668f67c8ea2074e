"""Bytes as lines of a bounded length, and how many of them are looked at a second. Pure."""

from __future__ import annotations

from collections.abc import Iterator


class Lines:
    """most: bytes of a line. What is longer is skipped to its end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun = bytearray()
        self._skipping = False

    @property
    def half(self) -> bool:
        """Something came that no line end followed."""
        return bool(self._begun) or self._skipping

    def cut(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that end in this, without their ends; None for one that is too long."""
        *ended, rest = data.split(b"\n")
        for each in ended:
            self._begun += each
            yield None if self._skipping or len(self._begun) > self._most else bytes(self._begun)
            self._begun.clear()
            self._skipping = False
        self._begun += rest
        if len(self._begun) > self._most:
            self._begun.clear()
            self._skipping = True


class Allowance:
    """rate: of so many a second. burst: at once. now: seconds, whatever they are counted from."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._looked = burst, now

    def take(self, now: float) -> bool:
        """Whether there is one more."""
        self._left = min(self._burst, self._left + max(0.0, now - self._looked) * self._rate)
        self._looked = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
