"""An alert of a detector of somebody else's, as we take it over; and whether the one whom it is about is us."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MOST_RULE, MOST_TEXT, MOST_NAME, MOST_TAGS = 128, 512, 253, 16
"""Characters of a rule, of what an alert says, of a tag or a name; and how many tags are taken over."""
LEAST_CONTAINER = 12
"""Characters of a container's id that are enough to know it by, as runtimes and Falco print it."""


class Detector(StrEnum):
    """Whose words we know."""

    FALCO = "falco"
    TETRAGON = "tetragon"


class Priority(StrEnum):
    """Falco's, the slightest first (userspace/engine/falco_common.cpp). Tetragon has none."""

    DEBUG = "debug"
    INFORMATIONAL = "informational"
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"
    ALERT = "alert"
    EMERGENCY = "emergency"

    def reaches(self, least: Priority) -> bool:
        """Is it at least as grave?"""
        ranks = list(Priority)
        return ranks.index(self) >= ranks.index(least)


@dataclass(frozen=True, slots=True)
class About:
    """Whom an alert names, as far as it does; empty or 0 where it does not. host: no container at all.

    container: its id, or the beginning of it. node: the machine that it was raised on. pid: as that machine itself
    numbers it.
    """

    container: str = ""
    pod_uid: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""
    pid: int = 0
    host: bool = False

    @property
    def contained(self) -> bool:
        """It names a container, or a pod."""
        return bool(self.container or self.pod_uid or self.pod)


@dataclass(frozen=True, slots=True)
class Alert:
    """rule: of Falco the rule's name, of Tetragon the policy's. text, executable: bounded, and harmless to show.

    at_ms: when what it is about happened, Unix milliseconds by the clock of its machine.
    """

    detector: Detector
    rule: str
    text: str
    at_ms: int
    about: About = About()
    priority: Priority | None = None
    tags: tuple[str, ...] = ()
    executable: str = ""

    @property
    def told(self) -> str:
        """In one line: whose, by which rule, how grave, and what it says."""
        grave = f" ({self.priority})" if self.priority is not None else ""
        return f"{self.detector}: {self.rule}{grave}: {self.text}"


@dataclass(frozen=True, slots=True)
class Sign:
    """A detector is there. lost: why it may have missed something, by its own word; empty where it says nothing of the
    kind. dropped: how much it has dropped since it began, where it counts that.
    """

    detector: Detector
    at_ms: int
    lost: str = ""
    dropped: int = 0


Heard = Alert | Sign


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a workload runs, as detectors would name it; empty where nobody knows.

    node: the machine's name. pids: they can be compared: its measurer numbers processes as the machine itself does.
    """

    container: str = ""
    pod_uid: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""
    pids: bool = False


class Concern(StrEnum):
    """Whether an alert is about a workload."""

    OURS = "ours"
    OTHERS = "others"
    BY_PID = "by-pid"
    """It depends on whose the process of that pid is."""
    NOBODYS = "nobodys"
    """It names nobody whom we could tell from ourselves."""


def concern(about: About, where: Whereabouts, *, here: bool) -> Concern:
    """By the most certain of what both sides know. here: it was raised on the workload's own machine for certain."""
    if about.container and where.container:
        return _ours(same_container(about.container, where.container))
    if about.pod_uid and where.pod_uid:
        return _ours(about.pod_uid == where.pod_uid)
    if about.pod and where.pod and about.namespace and where.namespace:
        return _ours((about.namespace, about.pod) == (where.namespace, where.pod))
    if about.host and where.container:
        return Concern.OTHERS
    if not here and (not about.node or about.node != where.node):
        return Concern.OTHERS
    if about.pid and where.pids:
        return Concern.BY_PID
    if about.contained and where.pids and not where.container:
        return Concern.OTHERS  # we would see the container that we are in
    return Concern.NOBODYS


def same_container(one: str, other: str) -> bool:
    """Both long enough, and one the beginning of the other: Falco prints 12 characters, Tetragon 31, runtimes 64."""
    return min(len(one), len(other)) >= LEAST_CONTAINER and (one.startswith(other) or other.startswith(one))


def _ours(same: bool) -> Concern:
    return Concern.OURS if same else Concern.OTHERS
