"""Events of the machine as tests tell them, and what a story of them comes to."""

from __future__ import annotations

from attestation.layers import Layer
from attestation.trust import Tier
from attestation.violation import Violation, ViolationClass
from sidecar.freshness import step
from sidecar.states import Appraised, Command, Event, Lease, Now, State


def at(boot: float, wall: float | None = None) -> Now:
    return Now(boot, boot + 1e9 if wall is None else wall)


def violation(
    when: float = 5.0, *, tamper: bool = False, subject: str = "/srv/app/main.py", found: str = "a" * 64
) -> Violation:
    kind = ViolationClass.TAMPER if tamper else ViolationClass.DRIFT
    return Violation("file-modified", kind, Layer.FILES, subject, "modified", when, found=found)


def affirmed(
    sequence: int, *, generation: int = 0, measured: float = 0.0, end: float = 100.0, tier: Tier = Tier.AFFIRMING
) -> Appraised:
    lease = Lease(sequence, end, end + 1e9, affirmed=tier is Tier.AFFIRMING)
    return Appraised(tier, generation, sequence, measured, lease)


def after(state: State, *events: tuple[float, Event]) -> tuple[State, list[Command]]:
    commands: list[Command] = []
    for when, event in events:
        decided = step(state, event, at(when))
        state, commands = decided.state, list(decided.commands)
    return state, commands
