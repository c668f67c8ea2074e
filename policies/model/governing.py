"""All that rules one workload, put together from the documents of its namespace and of the root namespace."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pydantic import BaseModel

from attestation.digests import Digest
from policies.model.merge import Applying, Conflict
from policies.model.origin import Origin
from policies.model.policy import AttestationPolicy
from policies.model.references import EffectiveReferences
from policies.model.registration import WorkloadRegistration


@dataclass(frozen=True, slots=True)
class Governing:
    """All that rules one workload: its registration, its policies merged, its reference values with their ancestors'.

    documents: where all of them were read; none for what was put together in memory. applying: the policies as they
    are written. conflicts: of these.
    """

    registration: WorkloadRegistration
    policy: AttestationPolicy
    references: EffectiveReferences
    documents: tuple[Origin, ...] = ()
    applying: tuple[Applying, ...] = ()
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
