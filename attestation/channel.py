"""The words between a sidecar and its measurer: one JSON datagram each over a SOCK_SEQPACKET socketpair.

JSON, because the measurer has nothing but the standard library. What is large (a layer's body) travels as a
sealed memfd beside its message, so that a fact never queues behind a manifest; what must not be looked up again
(Envoy's process) travels as a pidfd.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from attestation import strictjson
from attestation.calls import Watching
from attestation.containment import Containment, Means
from attestation.coverage import Coverage
from attestation.errors import InvalidInput
from attestation.facts import (
    Actor,
    CallFact,
    CapabilityFact,
    CollectorFact,
    EgressFact,
    ExecutionFact,
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
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.means import Trial
from attestation.observation import Observation
from attestation.plain import build, plain
from attestation.proxy import ProxyProcess

MOST_BYTES = 64 * 1024


# Sidecar to measurer.


@dataclass(frozen=True, slots=True)
class Calls:
    """How system calls are watched. allowed: names of calls, of which nothing is told; None for all.

    kill: whoever makes another one is ended by the kernel, at once. notified: a listener is wanted (`Listener`), and
    missed where there is none. refuse: a call that waits for our answer and is not allowed fails (EPERM). window,
    period: of SAMPLED: seconds. capabilities: names of those whose use is not told; None where uses are not looked at.
    """

    watching: Watching
    allowed: tuple[str, ...] | None = None
    kill: bool = False
    notified: bool = False
    refuse: bool = False
    window: float = 5.0
    period: float = 60.0
    capabilities: tuple[str, ...] | None = None


class Fence(StrEnum):
    """Around what the workload connects to."""

    NONE = "none"
    READY = "ready"
    """It stands and everything passes, until DENY_EGRESS is ordered."""
    LISTED = "listed"
    """It refuses what `Scope.egress` does not hold, too."""


@dataclass(frozen=True, slots=True)
class Scope:
    """First message: whom to measure. pid is resolved once, to a pidfd, and never again. Sent again, it replaces
    what is measured of the same workload, and the dead-man time.

    include: absolute paths as the workload sees them (files or folders). volatile: what is not measured below them;
    for each reason lists of glob patterns, of which every one must match (attestation.patterns.Overlap). cgroup: path
    of the workload's cgroup; empty to follow the tree below pid. deadman: seconds of silence after which the guardian
    acts. immutable: tell of a write before what was written is read. reread: seconds after which a file is read again
    by chance, on average; 0 for never. capabilities: measure those of files as well. egress: destinations whose
    connections are not told (attestation.destinations); None where none are looked for. egress_every: seconds from one
    look for them to the next, at least. fence: which one is to stand. calls: None where nobody asks for the layer of
    calls. memory: the most seconds between two looks into the processes' memory; 0 for none.
    """

    pid: int
    include: tuple[str, ...]
    volatile: tuple[tuple[tuple[str, ...], ...], ...] = ()
    cgroup: str = ""
    deadman: float = 5.0
    immutable: bool = False
    reread: float = 0.0
    capabilities: bool = True
    egress: tuple[str, ...] | None = None
    egress_every: float = 1.0
    fence: Fence = Fence.NONE
    calls: Calls | None = None
    memory: float = 0.0


@dataclass(frozen=True, slots=True)
class Measure:
    """Measure these layers again; the observation must have begun at or after not_before (CLOCK_BOOTTIME)."""

    layers: tuple[Layer, ...]
    not_before: float
    full: bool = False


@dataclass(frozen=True, slots=True)
class Guard:
    """With a pidfd: this is the Envoy whose connections end when the sidecar does. Replaces an earlier one."""

    pid: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """End every open mesh connection of the guarded Envoy.

    verify: look again, and again until none is left that was open before. Without it the answer comes a dump
    earlier, and says nothing of what is left.
    """

    number: int
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Sever:
    """End what the guarded Envoy has open to these remote addresses, and nothing else; again until none is left.

    addresses: attestation.addresses has their form.
    """

    number: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KillEnvoy:
    """The last rung: SIGKILL through the pidfd."""

    number: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The sidecar is alive and its event loop turns. Sent several times a dead-man period; answered by the same."""

    number: int


@dataclass(frozen=True, slots=True)
class Contain:
    """Do this to the workload; an order that came before and is still being carried out ends. NONE lets go again what
    was frozen, and its egress, unless it asks for a bundle; DENY_EGRESS lets go what was frozen.

    bundle: the most bytes of a forensic bundle, which is taken after a freeze and before a kill; 0 for none. within:
    seconds that it may take. before: an earlier measurer froze it, so that what stands still is ours to let go.
    """

    number: int
    how: Containment
    bundle: int = 0
    within: float = 0.0
    before: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """stands: refuse whatever the workload is about to execute and this list does not have, a sealed memfd of SHA-256
    digests, 32 bytes each; it replaces the list before. Without it nothing comes along: let everything be executed.
    """

    stands: bool


@dataclass(frozen=True, slots=True)
class Listener:
    """With the listener of a seccomp filter that the workload was started under: its calls wait for an answer there."""


@dataclass(frozen=True, slots=True)
class Whose:
    """Was the process that had this pid at this time (CLOCK_BOOTTIME) one of the workload's?"""

    number: int
    pid: int
    by: float


# Measurer to sidecar.


@dataclass(frozen=True, slots=True)
class Pinned:
    """Answer to Scope: the instance. started: CLOCK_BOOTTIME seconds of its first process."""

    instance: InstanceId
    boot_id: str
    started: float


@dataclass(frozen=True, slots=True)
class Covered:
    """What is watched, whenever that changes. tried: what of the kernel we can use, as it was found at the start."""

    coverage: Coverage
    tried: tuple[Trial, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """A layer was measured. With a sealed memfd of the body, unless has_body is False: the digest is as before."""

    observation: Observation
    has_body: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """Answer to Sweep and KillEnvoy. left: connections seen open in the first dump that are still there."""

    number: int
    destroyed: int
    left: int
    passes: int
    at: float


@dataclass(frozen=True, slots=True)
class Severed:
    """Answer to Sever. left: connections to those addresses that are still there."""

    number: int
    destroyed: int
    left: int


@dataclass(frozen=True, slots=True)
class Guarded:
    """Answer to Guard. workload: it is a process of the workload, which is guarded by nobody and gets no key.

    outlives: why what it has open would go on if sidecar and measurer ended in one act; empty where the kernel ends it.
    """

    pid: int
    workload: bool
    outlives: str = ""


@dataclass(frozen=True, slots=True)
class Contained:
    """Answer to Contain; with number 0, unasked, which means there are. Comes again where what was frozen ran again.

    processes: how many it was done to. left: those of the workload that still run, as far as anybody knows; of
    DENY_EGRESS, the connections that it opened to elsewhere and that are still open. at:
    CLOCK_BOOTTIME seconds of its end. refusal: why nothing was done; empty where it was.
    """

    number: int
    how: Containment
    means: Means
    processes: int
    left: int
    at: float
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Bundled:
    """With a sealed memfd: what was collected of the workload, a JSON document a line. complete: nothing was left out
    for its size or the time it took. refusal: why there is none.
    """

    number: int
    complete: bool
    at: float
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    """Answer to Whose. workload: None where nobody can tell. process: it, where it is the workload's."""

    number: int
    workload: bool | None
    process: Actor | None = None


@dataclass(frozen=True, slots=True)
class Inspected:
    """The guarded Envoy was looked at. process: None where nobody is guarded, or it has ended.

    method, began, full_began: as of an Observation. pid: whom it is about, 0 for nobody. tracer: pid and executable of
    whoever is attached to it, empty for nobody.
    """

    method: Method
    began: float
    full_began: float
    process: ProxyProcess | None = None
    pid: int = 0
    tracer: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """The measurer cannot go on. Its process ends right after; the sidecar closes."""

    what: str
    where: str
    mend: str


Message = (
    Scope
    | Measure
    | Guard
    | Sweep
    | Sever
    | KillEnvoy
    | Beat
    | Contain
    | Gate
    | Listener
    | Whose
    | Pinned
    | Covered
    | Observed
    | Swept
    | Severed
    | Guarded
    | Contained
    | Bundled
    | Owned
    | Inspected
    | Fault
    | FileFact
    | MountFact
    | ExecutionFact
    | ScriptFact
    | PreloadFact
    | RefusalFact
    | ProcessFact
    | StdioFact
    | EgressFact
    | CollectorFact
    | InstanceFact
    | CallFact
    | CapabilityFact
    | MemoryFact
)

_ENCODER = json.JSONEncoder(separators=(",", ":"))
_SHAPES: dict[str, type[Any]] = {shape.__name__: shape for shape in Message.__args__}


def encode(message: Message) -> bytes:
    """One datagram. Raises InvalidInput when it would not fit."""
    datagram = _ENCODER.encode({"is": type(message).__name__, **plain(message)}).encode()
    if len(datagram) > MOST_BYTES:
        raise InvalidInput(f"a {type(message).__name__} of {len(datagram)} bytes", where="measurer channel")
    return datagram


def decode(datagram: bytes) -> Message:
    """`encode` reversed. Raises InvalidInput for unknown kinds, unknown or mistyped fields."""
    try:
        fields = strictjson.loads(datagram)
        shape = _SHAPES[fields.pop("is")]
    except (InvalidInput, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput("a datagram that is no message", where="measurer channel") from error
    message: Message = build(shape, fields, where=shape.__name__)
    return message
