"""A fact that policy forbids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attestation.facts import Actor
from attestation.layers import Layer


class ViolationClass(StrEnum):
    """DRIFT is state that can be put right. TAMPER leaves no clean state behind: only a new instance is clean."""

    DRIFT = "drift"
    TAMPER = "tamper"


@dataclass(frozen=True, slots=True)
class Violation:
    """What was found, where, and which line of policy or reference forbids it.

    kind: a stable word such as `file-modified`, the label of metrics and of Envoy's refusals. subject: the path or
    executable. at: CLOCK_BOOTTIME of the fact, seconds. rule: what forbids it, as policies/model/places.py writes
    it. mend: what repairs it. process: whose act it was. allow: the YAML that would allow it, empty where none would.
    found: as attestation.drift.Drift has it, empty where nobody can say.
    """

    kind: str
    violation_class: ViolationClass
    layer: Layer
    subject: str
    text: str
    at: float
    rule: str = ""
    mend: str = ""
    process: Actor | None = None
    allow: str = ""
    found: str = ""

    @property
    def tamper(self) -> bool:
        return self.violation_class is ViolationClass.TAMPER
