"""What the measurer says, by whom it is for. With a fact the line to Envoy's socket begins, which waits for nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from attestation.channel import (
    Beat,
    Bundled,
    Contained,
    Covered,
    Fault,
    Guarded,
    Inspected,
    Message,
    Observed,
    Owned,
    Pinned,
    Severed,
    Swept,
)
from attestation.coverage import Coverage
from attestation.errors import Unavailable
from attestation.facts import (
    CallFact,
    CapabilityFact,
    CollectorFact,
    EgressFact,
    ExecutionFact,
    Fact,
    FileFact,
    InstanceFact,
    MemoryFact,
    MountFact,
    PreloadFact,
    ProcessFact,
    RefusalFact,
    ScriptFact,
    StdioFact,
)
from sidecar import states
from sidecar.containing import Containing
from sidecar.detectors.detectors import Detectors
from sidecar.ends import Ends
from sidecar.envoy import Envoy
from sidecar.governing import unmeasurable
from sidecar.heartbeat import Heartbeat
from sidecar.judging import Judging
from sidecar.losing import Losing
from sidecar.machine import Machine
from sidecar.observations import Observations
from sidecar.placement import Placement
from sidecar.proxy import ProxyLayer
from sidecar.telling import Telling

_MOST_FACTS = 512
"""The latest, for a forensic bundle."""


class Owner(Protocol):
    """Who decides what follows from what is no contradiction."""

    def maybe_mended(self) -> None:
        """Something changed, and may be the repair of what closed."""

    def vouched(self) -> None:
        """The measurer guards an Envoy."""

    def inspected(self) -> None:
        """Envoy is measured, and is as it was affirmed."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Whom the measurer's words are for."""

    judging: Judging
    observations: Observations
    proxy: ProxyLayer
    envoy: Envoy
    containing: Containing
    detectors: Detectors
    heartbeat: Heartbeat
    machine: Machine
    placement: Placement
    losing: Losing
    ends: Ends
    telling: Telling


class Hearing:
    """coverage: as the measurer told it last; nothing while there is none. facts: the latest, the oldest first."""

    def __init__(self, owner: Owner, parts: Parts) -> None:
        self._owner, self._parts = owner, parts
        self.coverage = Coverage()
        self.facts: deque[Fact] = deque(maxlen=_MOST_FACTS)

    def forget(self) -> None:
        """Nobody watches any more."""
        self.coverage = Coverage()

    def heard(self, message: Message, body: bytes | None) -> None:
        parts = self._parts
        match message:
            case (
                FileFact()
                | MountFact()
                | ExecutionFact()
                | RefusalFact()
                | ScriptFact()
                | PreloadFact()
                | ProcessFact()
                | StdioFact()
                | EgressFact()
                | CallFact()
                | CapabilityFact()
                | MemoryFact()
                | CollectorFact()
            ):
                self.facts.append(message)
                parts.judging.saw(message)
            case Observed(observation):
                if parts.observations.observed(observation, body):
                    self._owner.maybe_mended()
            case Inspected():
                if parts.proxy.inspected(message):
                    self._owner.inspected()
            case Swept():
                parts.envoy.swept(message)
            case Severed():
                parts.envoy.severed(message)
            case Guarded():
                parts.envoy.vouched(message)
                self._owner.vouched()
            case Contained():
                parts.containing.contained(message)
            case Bundled():
                parts.containing.bundled(message, body)
            case Owned():
                parts.detectors.owned(message)
            case Beat():
                parts.heartbeat.answered()
            case InstanceFact():
                parts.machine.step(states.WorkloadEnded("workload-ended"))
            case Covered(coverage, tried):
                self.coverage = coverage
                parts.observations.lack(unmeasurable(coverage))
                parts.telling.covered(coverage, tried)
            case Pinned():
                self._pinned(message)
            case Fault(what, where, mend):
                parts.losing.failed(Unavailable(what, where=where or "measurer", mend=mend))
            case _:
                parts.losing.lost(f"it sent a {type(message).__name__}, which is ours to send")

    def _pinned(self, pinned: Pinned) -> None:
        ends = self._parts.ends
        if not ends.is_pinned:
            ends.pin(pinned)
        elif pinned.instance != ends.pinned.instance:
            ends.workload_ended()
        else:
            self._parts.placement.settled()
