"""What was watched, by which mechanism, how late it can be, what it lost, and how isolated the watchers are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attestation.layers import Layer


class Mechanism(StrEnum):
    FANOTIFY = "fanotify"
    INOTIFY = "inotify"
    PROC_CONNECTOR = "proc-connector"
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class CollectorCoverage:
    """One collector. latency_ms is the stated worst case between act and fact on an idle machine."""

    name: str
    layer: Layer
    mechanism: Mechanism
    latency_ms: float
    running: bool
    lost: int = 0
    detail: str = ""


class Cutting(StrEnum):
    """The strongest way this set-up has to end open connections, best first."""

    DESTROY = "destroy"
    """SOCK_DESTROY through the kernel; needs CAP_NET_ADMIN in the workload's network namespace."""
    KILL = "kill"
    """Envoy is killed and comes back closed."""
    CAPPED = "capped"
    """Nothing ends them before the connection-duration cap in Envoy's configuration."""


class Grade(StrEnum):
    """What holds when the sidecar dies."""

    CLOSED_BY_GUARDIAN = "closed-by-guardian"
    BOUNDED_NEW_CONNECTIONS_ONLY = "bounded-new-connections-only"


@dataclass(frozen=True, slots=True)
class Isolation:
    """How hard it is for the workload to reach the programs that measure it."""

    non_dumpable: bool
    distinct_user: bool
    workload_can_trace: bool
    """The workload has CAP_SYS_PTRACE, or shares our user where Yama does not forbid attaching."""
    shared_pid_namespace: bool


@dataclass(frozen=True, slots=True)
class Coverage:
    collectors: tuple[CollectorCoverage, ...] = ()
    absent: tuple[Layer, ...] = ()
    """Layers that nothing here measures."""
    cutting: Cutting = Cutting.CAPPED
    grade: Grade = Grade.BOUNDED_NEW_CONNECTIONS_ONLY
    isolation: Isolation = Isolation(False, False, True, True)

    @property
    def weakest(self) -> dict[Layer, bool]:
        """Layer by layer: does every collector that feeds it run?"""
        running: dict[Layer, bool] = {}
        for collector in self.collectors:
            running[collector.layer] = running.get(collector.layer, True) and collector.running
        return running
