"""The measurer lost: closed at once, and looked for again where it is the node's."""

from __future__ import annotations

from collections.abc import Callable

from attestation.errors import Unavailable
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.violation import Violation
from policies.model.policy import PolicySpec
from sidecar import states
from sidecar.ends import Ends
from sidecar.machine import Machine
from sidecar.measurement import Measurer
from sidecar.placement import Placement
from sidecar.states import Now, Phase
from sidecar.telling import Telling


class Losing:
    """forget: whatever it has told of itself is over. abandoned: what is open is to end without it, and why."""

    def __init__(
        self,
        placement: Placement,
        measurer: Measurer,
        machine: Machine,
        ends: Ends,
        telling: Telling,
        *,
        ruled: Callable[[], PolicySpec | None],
        now: Callable[[], Now],
        forget: Callable[[], None],
        abandoned: Callable[[str], None],
    ) -> None:
        self._placement, self._measurer, self._machine = placement, measurer, machine
        self._ends, self._telling = ends, telling
        self._ruled, self._now, self._forget, self._abandoned = ruled, now, forget, abandoned

    def failed(self, error: Unavailable) -> None:
        """Its last word. What it says of one connection may be mended for the next."""
        if self._comes_back:
            self.lost(error.sentence)
        else:
            self._ends.end(error)

    def lost(self, reason: str) -> None:
        """Closed. The node's is looked for again; ours ended, and what is left of it ends with us."""
        if self._placement.looks:
            return
        self._measurer.hang_up()
        self._forget()
        self._telling.measurer_lost(reason)
        if self._machine.state.phase is not Phase.ENDED:
            self._machine.step(states.MeasurerLost(violation(reason, self._ruled(), self._now())))
            self._abandoned(reason)
        if self._comes_back:
            self._placement.lost()
        else:
            mend = "Start the sidecar again."
            self._ends.end(Unavailable(f"the measurer is lost: {reason}", where="measurer", mend=mend))

    @property
    def _comes_back(self) -> bool:
        return self._placement.comes_back and self._ends.is_pinned


def violation(reason: str, ruled: PolicySpec | None, now: Now) -> Violation:
    """That nobody watches, as policy classes it. ruled: None before enrolment."""
    kind = Signal.MEASURER_LOST
    return Violation(
        kind,
        kind.default if ruled is None else ruled.violation_class(kind),
        Layer.ATTESTER,
        "measurer",
        reason,
        now.boot,
        "nobody watches the workload",
        "Start the sidecar again; a full measurement follows.",
    )
