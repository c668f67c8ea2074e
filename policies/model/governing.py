"""All that rules one workload, put together from the documents of its namespace and of the root namespace."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from attestation.digests import Digest
from policies.model.merge import Conflict
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues
from policies.model.registration import WorkloadRegistration


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document stands: its file, its first line, and the line of each rule in it."""

    file: Path
    line: int
    lines: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def places(self) -> dict[str, str]:
        """Rule -> `web.yaml:12`. The file's name only: whoever is told does not need the authority's folders."""
        return {rule: f"{self.file.name}:{line}" for rule, line in self.lines.items()}


@dataclass(frozen=True, slots=True)
class Governing:
    """All that rules one workload: its registration, its policies merged, and its reference values.

    documents: where all of them were read; none for what was put together in memory. conflicts: of the policies.
    """

    registration: WorkloadRegistration
    policy: AttestationPolicy
    references: ReferenceValues
    documents: tuple[Origin, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @property
    def origins(self) -> dict[str, str]:
        """Rule (as policies.model.places.rule writes it) -> file and line."""
        return {rule: at for origin in self.documents for rule, at in origin.places.items()}

    @property
    def digest(self) -> Digest:
        """Changes exactly when anything that an appraisal looks at changes."""
        parts = self.registration, self.policy, self.references
        return hashlib.sha256("\n".join(canonical(each) for each in parts).encode()).hexdigest()


def canonical(model: BaseModel) -> str:
    return model.model_dump_json(by_alias=True)
