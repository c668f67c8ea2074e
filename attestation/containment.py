"""What may be done to a workload itself, beyond closing its traffic."""

from __future__ import annotations

from enum import StrEnum


class Containment(StrEnum):
    """The mildest first."""

    NONE = "none"
    FREEZE = "freeze"
    """None of its processes runs any more. They keep their memory, and can go on."""
    KILL = "kill"

    @property
    def severity(self) -> int:
        return tuple(Containment).index(self)


class Means(StrEnum):
    """How a workload is contained, best first."""

    CGROUP = "cgroup"
    """Its group of version 2: `cgroup.freeze` and `cgroup.kill` take all of it at once."""
    FREEZER = "freezer"
    """Its group of the version 1 freezer: frozen at once, then killed one by one."""
    SIGNALS = "signals"
    """SIGSTOP and SIGKILL to each of its processes, in rounds until no new one appears."""
