"""What delivery tells its owner, for the log and the counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Happening(StrEnum):
    """Each comes with a detail for the log."""

    DRAINING = "draining"
    CLOSED = "closed"
    BOUNDED = "closed-bounded"
    OPENED = "opened"
    ESCALATED = "escalated"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Told:
    """steps: when a closing reached each rung, in CLOCK_BOOTTIME seconds by name. reason: what a closing was for."""

    happening: Happening
    detail: str
    destroyed: int = 0
    steps: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
