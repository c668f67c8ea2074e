"""What was watched, by which mechanism, how late it can be, what it lost, and how isolated the watchers are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attestation.layers import Layer

FILES, EXECUTIONS = "files", "processes.executions"
"""The names of the two collectors that a profile goes by."""
CALLS, MEMORY = "syscalls", "memory"
"""Those of calls and of what is mapped as code."""
GATE = "processes.gate"
"""What is asked before an execution, where policy wants that. It measures nothing."""
FENCE = "processes.fence"
"""What refuses connections, where policy wants that. It measures nothing."""
NOTIFIED = "syscalls.notified"
"""What is asked before a call that no filter lets through, where policy wants that. It measures nothing."""
EGRESS = "processes.egress"
"""The collector of connections, which there is where policy says what may be connected to."""
DETECTORS = "detectors."
"""Begins the names of detectors of somebody else's, which feed no layer."""


class Mechanism(StrEnum):
    FANOTIFY = "fanotify"
    INOTIFY = "inotify"
    PROC_CONNECTOR = "proc-connector"
    POLL = "poll"
    BPF = "bpf"
    SECCOMP = "seccomp"
    DETECTOR = "detector"
    """Somebody else's, who tells us."""


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


class Profile(StrEnum):
    """How much of what happens the kernel tells, best first (docs/profiles.md)."""

    FULL = "full"
    """Every change of a file with its writer, every fork, execution and end."""
    CONTAINED = "contained"
    """Every change of a file with its writer and every execution of a file; forks and ends by looking."""
    RESTRICTED = "restricted"
    """Less: changes of files without their writers, or processes by looking alone."""


class Grade(StrEnum):
    """What holds when the sidecar dies."""

    CLOSED_BY_GUARDIAN = "closed-by-guardian"
    BOUNDED_NEW_CONNECTIONS_ONLY = "bounded-new-connections-only"


class Guarantee(StrEnum):
    """What a policy can ask of isolation, each on its own."""

    NON_DUMPABLE = "non-dumpable"
    DISTINCT_USER = "distinct-user"
    NO_TRACING = "no-tracing"
    NO_IMPERSONATION = "no-impersonation"
    OWN_PID_NAMESPACE = "own-pid-namespace"
    ENVOY_NON_DUMPABLE = "envoy-non-dumpable"
    ENVOY_DISTINCT_USER = "envoy-distinct-user"
    ENVOY_NO_TRACING = "envoy-no-tracing"


@dataclass(frozen=True, slots=True)
class Isolation:
    """How hard it is for the workload to reach the programs that measure it, and the Envoy that holds its key.

    "We" are the sidecar and its measurer. What is not known is said as the worse, and so are the last three while
    no Envoy is guarded.
    """

    non_dumpable: bool = False
    """The kernel gives neither of us out: no core dump, no attaching, no /proc/PID/mem without CAP_SYS_PTRACE."""
    distinct_user: bool = False
    workload_can_trace: bool = True
    """The workload has a capability that reads our memory, or could attach as our user."""
    shared_pid_namespace: bool = True
    workload_can_become_us: bool = True
    """The workload is our user, may take it, or may overwrite what we run."""
    envoy_non_dumpable: bool = False
    envoy_distinct_user: bool = False
    workload_can_trace_envoy: bool = True

    @property
    def guarantees(self) -> frozenset[Guarantee]:
        """What holds."""
        held = {
            Guarantee.NON_DUMPABLE: self.non_dumpable,
            Guarantee.DISTINCT_USER: self.distinct_user,
            Guarantee.NO_TRACING: not self.workload_can_trace,
            Guarantee.NO_IMPERSONATION: not self.workload_can_become_us,
            Guarantee.OWN_PID_NAMESPACE: not self.shared_pid_namespace,
            Guarantee.ENVOY_NON_DUMPABLE: self.envoy_non_dumpable,
            Guarantee.ENVOY_DISTINCT_USER: self.envoy_distinct_user,
            Guarantee.ENVOY_NO_TRACING: not self.workload_can_trace_envoy,
        }
        return frozenset(each for each, holds in held.items() if holds)


@dataclass(frozen=True, slots=True)
class Coverage:
    collectors: tuple[CollectorCoverage, ...] = ()
    absent: tuple[Layer, ...] = ()
    """Layers that nothing here measures."""
    cutting: Cutting = Cutting.CAPPED
    grade: Grade = Grade.BOUNDED_NEW_CONNECTIONS_ONLY
    isolation: Isolation = Isolation()

    @property
    def profile(self) -> Profile:
        """What its collectors of files and of executions come to; the least where one is missing, or stands."""
        by = {each.name: each.mechanism for each in self.collectors if each.running}
        how = by.get(EXECUTIONS)
        if by.get(FILES) is not Mechanism.FANOTIFY:
            return Profile.RESTRICTED
        if how in (Mechanism.BPF, Mechanism.PROC_CONNECTOR):
            return Profile.FULL
        return Profile.CONTAINED if how is Mechanism.FANOTIFY else Profile.RESTRICTED

    @property
    def weakest(self) -> dict[Layer, bool]:
        """Layer by layer: does every collector that feeds it run? What measures nothing feeds none."""
        running: dict[Layer, bool] = {}
        for collector in self.collectors:
            if collector.name in _FEED_NONE or collector.name.startswith(DETECTORS):
                continue
            running[collector.layer] = running.get(collector.layer, True) and collector.running
        return running

    @property
    def gated(self) -> bool:
        """Nothing is executed that was not allowed before."""
        return any(each.name == GATE and each.running for each in self.collectors)

    @property
    def notified(self) -> bool:
        """Calls that no filter lets through wait until we have answered."""
        return any(each.name == NOTIFIED and each.running for each in self.collectors)

    @property
    def fenced(self) -> bool:
        """What it connects to can be refused."""
        return any(each.name == FENCE and each.running for each in self.collectors)


_FEED_NONE = (GATE, FENCE, NOTIFIED)
