"""What collectors saw. Facts carry no judgement: policies/ alone says whether one is a violation.

`at` is always CLOCK_BOOTTIME in seconds, read when the kernel's event was taken off its descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attestation.detectors.alerts import Alert
from attestation.digests import Digest
from attestation.memory import Code
from attestation.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Actor:
    """The process behind an act, as far as it could still be looked at. parent: its pid, 0 where nobody knows.

    pid, parent: as the measurer's pid namespace numbers them, 0 for who is not in it.
    """

    pid: int
    executable: str = ""
    parent: int = 0


class FileChange(StrEnum):
    ADDED = "added"
    MODIFIED = "modified"
    REMOVED = "removed"
    ATTRIBUTES = "attributes"
    UNREADABLE = "unreadable"
    WRITTEN = "written"
    """It is being written, or put there: told before it is read, where the scope asks for that."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """A measured path is not what it was. digest is empty for REMOVED, UNREADABLE and WRITTEN.

    link: it is a symbolic link, and the digest that of its target's text. capabilities: those of the file, as
    attestation.manifest has them.
    """

    at: float
    path: str
    change: FileChange
    digest: Digest = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    actor: Actor | None = None
    link: bool = False
    capabilities: str = ""


class Sighting(StrEnum):
    """How an execution came to be known: by a kernel event, or by looking at the process table."""

    EVENT = "event"
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class ExecutionFact:
    """A process of the workload runs this executable. digest is empty when the file could not be read any more."""

    at: float
    path: str
    digest: Digest
    process: Actor
    sighting: Sighting
    deleted: bool = False
    """No name leads to the file: deleted, or a memfd."""
    pid_inside: int = 0
    """The process's pid as the workload's own pid namespace numbers it; 0 where that is the measurer's too, or where
    the process was gone."""
    temporary: str = ""
    """Why nothing that was built can be expected where the file lies: `tmpfs`, `fuse`, or the folder that is open to
    everybody; empty where it can."""
    gains: str = ""
    """What its execution may give to whoever executes it, by the file: `user 0`, `group 42`, `capabilities 0100...`."""


@dataclass(frozen=True, slots=True)
class ScriptFact:
    """An interpreter runs this file, as its arguments said right after its execution; or a loader this program.

    digest: empty where the file could not be read, or was gone. process: its executable is the interpreter.
    """

    at: float
    path: str
    digest: Digest
    process: Actor
    sighting: Sighting
    deleted: bool = False
    """No name leads to the file."""
    pid_inside: int = 0
    """As of an ExecutionFact."""


@dataclass(frozen=True, slots=True)
class PreloadFact:
    """A process has libraries that come before its program's own, or folders of them, as it was told when it began.

    source: who says so: a variable of its environment, or /etc/ld.so.preload. entry: what is said there; empty where it
    could not be read. path: where that leads to; empty where nobody knows. digest: of a file, empty for a folder.
    """

    at: float
    source: str
    entry: str
    process: Actor
    path: str = ""
    digest: Digest = ""
    pid_inside: int = 0
    """As of an ExecutionFact."""


@dataclass(frozen=True, slots=True)
class RefusalFact:
    """An execution did not take place, because what was to be executed is in no list of what may be. digest is empty
    where it could not be read in time. process: who wanted to. deleted, pid_inside: as of an ExecutionFact.
    """

    at: float
    path: str
    digest: Digest
    process: Actor
    deleted: bool = False
    pid_inside: int = 0


class ProcessAspect(StrEnum):
    CAPABILITIES = "capabilities"
    SECCOMP = "seccomp"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    NAMESPACES = "namespaces"
    USER = "user"
    TRACER = "tracer"
    LABEL = "label"
    """That of a Linux security module, with its mode where that is known."""
    SCOPE = "scope"
    """The process left the measured cgroup or tree."""
    WRITTEN = "written"
    """Somebody else wrote into its memory; `after` says who."""
    UNMEASURED = "unmeasured"
    """The process runs in scope and cannot be measured; `after` says why."""


@dataclass(frozen=True, slots=True)
class ProcessFact:
    """A running process changed what it is allowed to do, or who watches it."""

    at: float
    process: Actor
    aspect: ProcessAspect
    before: str
    after: str
    pid_inside: int = 0
    """As of an ExecutionFact."""


class Opened(StrEnum):
    """Which end opened a connection."""

    HERE = "here"
    THERE = "there"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class StdioFact:
    """A process has a socket that leads out of the machine as its standard input, output or error.

    descriptors: which of 0, 1 and 2. protocol: as the kernel calls it (`TCP`, `UDPv6`, `AF_VSOCK`). remote: address
    and port of the other end, empty where it has none or nobody knows. opened: by whom; of what is no connection THERE.
    Sockets of AF_UNIX are not told, nor are those that listen.
    """

    at: float
    process: Actor
    descriptors: tuple[int, ...]
    protocol: str
    opened: Opened
    remote: str = ""
    pid_inside: int = 0
    """As of an ExecutionFact."""


class Passage(StrEnum):
    """What became of a connection."""

    MADE = "made"
    """It was made, or is tried."""
    REFUSED = "refused"
    """By a fence in the kernel, before its first packet."""
    UNSENT = "unsent"
    """Refused likewise, and nothing would have been sent: a datagram socket was to be connected. Libraries do that to
    find out which of several addresses is the nearest, and then connect to one by TCP."""


@dataclass(frozen=True, slots=True)
class EgressFact:
    """A process has connected to an address that the scope does not expect, or tries to. host: an IP address.

    protocol: as attestation.destinations has it. Where a socket was refused of which no destination can say anything,
    what it is of (`raw`, `protocol 132`), without a host.
    """

    at: float
    process: Actor
    protocol: str
    host: str
    port: int
    pid_inside: int = 0
    """As of an ExecutionFact."""
    passage: Passage = Passage.MADE


class CollectorState(StrEnum):
    RUNNING = "running"
    OVERFLOWED = "overflowed"
    """The kernel dropped events; everything is measured again."""
    LAGGING = "lagging"
    """What happens reaches it, or leaves it, far later than coverage promises."""
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class CollectorFact:
    """A collector is not, or again, what coverage promises."""

    at: float
    collector: str
    state: CollectorState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class InstanceFact:
    """The workload's first process ended: the instance is over."""

    at: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProxyFact:
    """The Envoy that holds the key is another than before, or stands otherwise. tracer: who is attached to it."""

    at: float
    proxy: Proxy
    process: Actor
    tracer: str = ""


@dataclass(frozen=True, slots=True)
class MountFact:
    """Something was mounted for the workload, or taken away: what lay at and below `path` may be another now.

    path: empty for a mount that came and went before it could be named. kind: of its file system.
    """

    at: float
    path: str
    mounted: bool
    kind: str = ""


@dataclass(frozen=True, slots=True)
class CallFact:
    """A process made a call that is not in its baseline: the first of this name since the last full measurement.

    call: as attestation.calls names them. refused: it failed with EPERM, and did nothing.
    """

    at: float
    call: str
    process: Actor
    pid_inside: int = 0
    """As of an ExecutionFact."""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class CapabilityFact:
    """A process used a capability that is not among those that may be used: the first use of it since the last full
    measurement.

    capability: CAP_SYS_CHROOT. call: in which system call, as attestation.calls names it; empty where in none.
    """

    at: float
    capability: str
    call: str
    process: Actor
    pid_inside: int = 0
    """As of an ExecutionFact."""


@dataclass(frozen=True, slots=True)
class MemoryFact:
    """A process can execute something that none could, as far as was told. why: of what is UNREAD; who set what is
    PROBED, as far as that is known. tracer: who is attached to the process now. pid_inside: as of an ExecutionFact.
    """

    at: float
    process: Actor
    code: Code
    why: str = ""
    tracer: str = ""
    pid_inside: int = 0


@dataclass(frozen=True, slots=True)
class AlertFact:
    """A detector of somebody else's has raised an alert. named: it is about this workload, by what it names; else it
    names nobody by whom that could be told. process: the one that it names, where that is the workload's.
    """

    at: float
    alert: Alert
    named: bool = True
    process: Actor | None = None


Fact = (
    FileFact
    | MountFact
    | ExecutionFact
    | ScriptFact
    | PreloadFact
    | RefusalFact
    | ProcessFact
    | StdioFact
    | EgressFact
    | CallFact
    | CapabilityFact
    | MemoryFact
    | CollectorFact
    | InstanceFact
    | ProxyFact
    | AlertFact
)
