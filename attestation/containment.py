"""What may be done to a workload itself, beyond closing its traffic."""

from __future__ import annotations

from enum import StrEnum


class Containment(StrEnum):
    """The mildest first."""

    NONE = "none"
    DENY_EGRESS = "deny-egress"
    """They run, and connect to nothing but this machine any more."""
    FREEZE = "freeze"
    """None of its processes runs any more. They keep their memory, and can go on."""
    KILL = "kill"

    @property
    def severity(self) -> int:
        return tuple(Containment).index(self)

    @property
    def stops(self) -> bool:
        """Nothing runs any more."""
        return self.severity >= Containment.FREEZE.severity


class Means(StrEnum):
    """How a workload is contained, best first."""

    CGROUP = "cgroup"
    """Its group of version 2: `cgroup.freeze` and `cgroup.kill` take all of it at once."""
    FREEZER = "freezer"
    """Its group of the version 1 freezer: frozen at once, then killed one by one."""
    SIGNALS = "signals"
    """SIGSTOP and SIGKILL to each of its processes, in rounds until no new one appears."""
    FENCE = "fence"
    """Of DENY_EGRESS, the only one: programs in the kernel at a control group above it."""
