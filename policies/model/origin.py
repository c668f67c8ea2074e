"""Where a document was read, for whoever has to find the line again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from policies.model.places import around


class Mark(NamedTuple):
    """A place in a file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document stands: its file, its beginning, and where each rule in it stands."""

    file: Path
    begins: Mark
    marks: Mapping[str, Mark] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file}:{self.begins.line}:{self.begins.column}"

    @property
    def places(self) -> dict[str, str]:
        """Rule -> `web.yaml:12`. The file's name only: whoever is told does not need the authority's folders."""
        return {rule: f"{self.file.name}:{mark.line}" for rule, mark in self.marks.items()}

    def at(self, rule: str) -> str:
        """`policies/web.yaml:12:3`: of the rule itself, else of the nearest section around it."""
        while rule and rule not in self.marks:
            rule = around(rule)
        mark = self.marks[rule] if rule else self.begins
        return f"{self.file}:{mark.line}:{mark.column}"
