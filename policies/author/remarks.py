"""What is said of policy documents: each remark with its place, its kind, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from attestation.errors import InvalidConfiguration

_PLACE = re.compile(r"(.*?)(?::(\d+)(?::(\d+))?)?", re.DOTALL)


class Level(StrEnum):
    """ERROR: an authority gives whom it concerns no identity, or takes none of the documents.

    WARNING: it takes them, and perhaps nobody meant that.
    """

    ERROR = "error"
    WARNING = "warning"


class Check(StrEnum):
    """What is looked for, by a name that never changes its meaning."""

    INVALID = "invalid"
    CONFLICT = "conflict"
    UNRULED = "unruled"
    SELECTS_NOTHING = "selects-nothing"
    UNUSED = "unused"
    UNREACHABLE = "unreachable"
    UNMEETABLE = "unmeetable"
    MEASURES_NOTHING = "measures-nothing"
    CODE_EXEMPT = "code-exempt"
    FRESHNESS_SHORT = "freshness-short"
    EXPIRED = "references-expired"
    EXPIRING = "references-expiring"


MEANINGS: Mapping[Check, str] = {
    Check.INVALID: "A document cannot be used, or not with others: whom it is for gets no identity.",
    Check.CONFLICT: "Two policies of equal rank state different values; the stricter one holds.",
    Check.UNRULED: "No policy is for a registration: it gets no identity.",
    Check.SELECTS_NOTHING: "A selector, or a name in it, chooses no registration.",
    Check.UNUSED: "Nothing refers to the document.",
    Check.UNREACHABLE: "Something that is stated can never matter.",
    Check.UNMEETABLE: "What is required is measured by nothing: nobody under the policy gets an identity.",
    Check.MEASURES_NOTHING: "The layer `files` is required, and what is included is nothing, or exempt.",
    Check.CODE_EXEMPT: "Files by whose names programs load code are exempt, where others beside them are judged.",
    Check.EXPIRED: "Reference values have expired: they affirm nothing, nor does what inherits them.",
    Check.EXPIRING: "Reference values expire within two weeks.",
    Check.FRESHNESS_SHORT: "A lease is too short to outlive two lost rounds, a fail-over and skew.",
}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """file: as it was named. line, column: from 1; 0 where only the file is known."""

    file: Path
    line: int = 0
    column: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """`policies/web.yaml:12:3`, as every error and every origin writes it."""
        match = _PLACE.fullmatch(text)
        assert match is not None  # noqa: S101 - it matches every text
        return cls(Path(match[1]), int(match[2] or 0), int(match[3] or 0))

    def __str__(self) -> str:
        return ":".join(str(each) for each in (self.file, self.line, self.column) if each)


@dataclass(frozen=True, slots=True)
class Remark:
    level: Level
    check: Check
    place: Place
    text: str
    mend: str = ""

    @classmethod
    def of(cls, error: InvalidConfiguration) -> Self:
        return cls(Level.ERROR, Check.INVALID, Place.read(error.where), error.what, error.mend)

    @classmethod
    def warning(cls, check: Check, at: str, text: str, mend: str = "") -> Self:
        """at: as Place.read takes it."""
        return cls(Level.WARNING, check, Place.read(at), text, mend)

    def __str__(self) -> str:
        advice = f". {self.mend}" if self.mend else ""
        return f"{self.place}: {self.level}: {self.text}{advice} [{self.check}]"
