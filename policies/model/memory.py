"""What processes may execute beside the code of referenced files: what `spec.memory` says."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_validator

from attestation.memory import rounded
from policies.model.dialect import Duration, Strict
from policies.model.strictness import Least, Overlapping

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_AMOUNT = re.compile(r"([1-9][0-9]{0,5})(KiB|MiB|GiB)", re.ASCII)
PERIOD = 5.0
"""Seconds between two looks where no policy says otherwise."""


def _amount(value: object) -> object:
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("an amount of memory is a number and a unit: 512KiB, 64MiB, 1GiB")
    return int(match[1]) * _UNITS[match[2]]


def amount_text(value: int) -> str:
    """In the largest unit that keeps the number whole."""
    unit = next(each for each in ("GiB", "MiB", "KiB") if value % _UNITS[each] == 0 or each == "KiB")
    return f"{value // _UNITS[unit]}{unit}"


Amount = Annotated[
    int,
    BeforeValidator(_amount),
    PlainSerializer(amount_text),
    WithJsonSchema({"type": "string", "title": "amount", "pattern": f"^{_AMOUNT.pattern}$"}),
]
"""Bytes; written as `64MiB`."""


class CodeAllowance(Strict):
    """executable: path of a program that makes code at run time. most: how much of it one of its processes may have.

    What is measured is rounded up to a power of two, and so is this. writable: that memory may be writable at the same
    time, as most compilers have it. memfd: it may be of a memfd or shared memory, as with those that map it twice.
    """

    executable: str = Field(pattern=r"^/", max_length=4096)
    most: Amount
    writable: bool = False
    memfd: bool = False

    def covers(self, amount: int, *, writable: bool, memfd: bool) -> bool:
        """amount: as attestation.memory.rounded has it."""
        return amount <= rounded(self.most) and self.writable >= writable and self.memfd >= memfd

    def both(self, other: CodeAllowance) -> CodeAllowance:
        """What both of one executable allow."""
        return CodeAllowance.model_construct(
            executable=self.executable,
            most=min(self.most, other.most),
            writable=self.writable and other.writable,
            memfd=self.memfd and other.memfd,
        )

    def __lt__(self, other: CodeAllowance) -> bool:
        return self.executable < other.executable


class MemoryRules(Strict):
    """What processes may execute, where the layer `memory` is measured. period: the most between two looks.

    jit: who may have code that is of no file. Nobody unless somebody says so, and an empty list forbids it to everybody
    below.
    """

    period: Annotated[Duration, Least()] = Field(default=PERIOD, ge=0.5)
    jit: Annotated[tuple[CodeAllowance, ...], Overlapping("executable")] = Field(default=(), max_length=256)

    @field_validator("jit")
    @classmethod
    def _distinct(cls, allowed: tuple[CodeAllowance, ...]) -> tuple[CodeAllowance, ...]:
        for path, count in Counter(each.executable for each in allowed).items():
            if count > 1:
                raise ValueError(f"{path} stands twice")
        return allowed

    def allowance(self, executable: str) -> CodeAllowance | None:
        return next((each for each in self.jit if each.executable == executable), None)
