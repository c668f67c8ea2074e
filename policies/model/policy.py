"""AttestationPolicy: what must be measured, how fresh it must be, and what happens when it is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from attestation.calls import Watching
from attestation.capabilities import CAPABILITIES
from attestation.containment import Containment
from attestation.coverage import Cutting, Grade, Guarantee, Profile
from attestation.destinations import parse, shortest
from attestation.errors import InvalidInput
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import ViolationClass
from policies.model.breakglass import BreakGlassRules
from policies.model.detectors import DetectorRules
from policies.model.dialect import Duration, Share, Strict
from policies.model.memory import MemoryRules
from policies.model.metadata import Document, Metadata, Selector
from policies.model.rules import MOST_RULES, MOST_TOTAL_COST, Rule, RuleName
from policies.model.signals import SignalName
from policies.model.strictness import (
    ALWAYS,
    ASKING,
    Alike,
    All,
    Bounded,
    Common,
    CommonBits,
    CommonDestinations,
    Least,
    LeastStated,
    Most,
    PerKey,
    Ranked,
)


class Mode(StrEnum):
    """observe: measure, somebody else's identity stays. audit: issue, record every would-have. enforce: close."""

    OBSERVE = "observe"
    AUDIT = "audit"
    ENFORCE = "enforce"


class Demand(StrEnum):
    """required: it must be measured, in time, and agree. best-effort: what is measured must agree; what is not, or too
    late, is told and closes nothing. off: neither.
    """

    REQUIRED = "required"
    BEST_EFFORT = "best-effort"
    OFF = "off"


class Recovery(StrEnum):
    """What opens traffic again after a violation.

    auto: an affirming full measurement taken after the cause. replace: a new instance, or a signed release. manual: a
    signed release only; until then no new instance of the registration is enrolled.
    """

    AUTO = "auto"
    REPLACE = "replace"
    MANUAL = "manual"


class LayerDemand(Strict):
    """How much a layer matters. demand: whether it must be measured, and agree with what policy and references say.

    max_age: the most since the layer was last measured. full_max_age: the most since it was last read in full.
    """

    demand: Annotated[Demand, Ranked((Demand.OFF, Demand.BEST_EFFORT, Demand.REQUIRED)), ALWAYS] = Demand.REQUIRED
    max_age: Annotated[Duration, Least()] = 60.0
    full_max_age: Annotated[Duration, Least()] = 3600.0


Patterns = Annotated[tuple[str, ...], Bounded()]
"""Glob patterns of paths (attestation/patterns.py)."""


class FileClasses(Strict):
    """What else than code a measured path may be. Where several match, the loosest holds: the last one named here.

    Code is what no pattern makes anything else: its content and attributes are referenced, as those of one version, and
    nothing else may be there.

    configuration: as code, but any of the referenced contents, whatever version it is of; a deviation is always drift.
    projected: volumes that are swapped atomically by `..data`, as Kubernetes does. What a stable name leads to is
    judged where it is referenced; other names, and all that begin with `..`, are no finding. Executing anything from
    there is tamper, referenced or not. logs: neither read nor judged; executing anything from there is tamper,
    referenced or not. caches: as `logs`, for what the program makes for itself. volatile: as `logs`, for all else that
    nobody can say the content of; it holds where other classes match as well.
    """

    configuration: Patterns = ()
    projected: Patterns = ()
    logs: Patterns = ()
    caches: Patterns = ()
    volatile: Patterns = ()


Bound = Annotated[tuple[str, ...] | None, Bounded()]


class FileBounds(Strict):
    """What may be of each class at most; None leaves a class unbounded.

    configuration, projected, logs, caches, volatile: only what one of these patterns matches may be of the class.
    """

    configuration: Bound = Field(default=None, exclude_if=lambda bound: bound is None)
    projected: Bound = Field(default=None, exclude_if=lambda bound: bound is None)
    logs: Bound = Field(default=None, exclude_if=lambda bound: bound is None)
    caches: Bound = Field(default=None, exclude_if=lambda bound: bound is None)
    volatile: Bound = Field(default=None, exclude_if=lambda bound: bound is None)


MOST_FILE_RULES = 48 * 1024
"""Bytes of what is said of files in one policy, or in several merged, written as JSON."""
REREAD = 600.0
"""Seconds after which a file is read again by chance, on average, where no policy says otherwise."""
_MOST_A_LETTER = 12
"""Bytes that a letter takes there: it may be two escapes."""


class FileRules(FileClasses):
    """What is measured of files, and what of it is no code. include: absolute paths measured, with all below them.

    within: a path is of a class only if each of these bounds allows it. Merging writes them; in a floor they say what
    others may exempt at most.

    immutable: code may not be written to, whatever its content is afterwards, nor a file be put there: that is told
    before it is read. Touching a file and changing its mode or owner are no writing; those are judged as they always
    are. reread: how long it takes on average until a file is read again, at a moment drawn by chance, although nothing
    says that it changed.
    """

    include: Annotated[tuple[str, ...], All()] = ()
    within: tuple[FileBounds, ...] = Field(default=(), exclude_if=lambda bounds: not bounds)
    immutable: Annotated[bool, ASKING] = Field(default=False, exclude_if=lambda immutable: not immutable)
    reread: Annotated[Duration, Least()] = Field(default=REREAD, ge=10, exclude_if=lambda mean: mean == REREAD)

    @model_validator(mode="after")
    def _tellable(self) -> Self:
        self.bounded()
        return self

    def bounded(self) -> None:
        """Raises ValueError for more than a measurer can be told in one message."""
        each_class = [getattr(rules, name) or () for rules in (self, *self.within) for name in FileClasses.model_fields]
        lists = [self.include, *each_class]
        letters = sum(len(text) + 1 for each in lists for text in each)
        if letters * _MOST_A_LETTER > MOST_FILE_RULES and (size := len(json.dumps(lists))) > MOST_FILE_RULES:
            raise ValueError(f"{size} bytes of paths and patterns, where {MOST_FILE_RULES} are the most")


class ProcessRules(Strict):
    """What the workload's processes may be. forbid_deleted: no executable may be without a name that leads to it.

    require_no_new_privileges: every process has no_new_privs. most_capabilities: hexadecimal, as CapEff: those that
    no process may exceed; where nobody says so they are not judged.

    gate: what is executed is held against the digests of the reference values before it runs, and refused (EPERM) where
    none is its own; only where policy enforces. `required`: without a gate in force nothing is affirmed. `best-effort`:
    where there can be one. `off`: what was executed is told, and closes, but runs.

    shells: glob patterns of programs that may have no socket of the network as standard input, output or error, beside
    those that never may: the usual shells, interpreters and relays. shells_on_sockets: glob patterns of those that may
    where the connection was opened from elsewhere, as inetd and socket activation start them; where several policies
    list some, only what all list, word for word. A connection that was opened from here is allowed to none.

    require_referenced_scripts: what an interpreter is given to run is among the files or the executables that are
    referenced. preload: patterns of what LD_PRELOAD, LD_AUDIT, LD_LIBRARY_PATH and /etc/ld.so.preload may name, besides
    libraries that are referenced and folders that are measured as code.

    forbid_temporary: nothing is executed, referenced or not, from memory (tmpfs, ramfs), from what a program makes up
    (FUSE), or from below a folder that everybody may write to; the file system of the workload's root does not count.
    forbid_gaining: nothing is executed that gives its caller another user, another group or capabilities.
    """

    forbid_deleted: Annotated[bool, ASKING] = True
    require_no_new_privileges: Annotated[bool, ASKING] = False
    most_capabilities: Annotated[str | None, CommonBits()] = Field(default=None, pattern=r"^[0-9a-f]{1,16}$")
    gate: Annotated[Demand, Ranked((Demand.OFF, Demand.BEST_EFFORT, Demand.REQUIRED))] = Field(
        default=Demand.OFF, exclude_if=lambda gate: gate is Demand.OFF
    )
    shells: Annotated[tuple[str, ...], All()] = Field(default=(), exclude_if=lambda patterns: not patterns)
    shells_on_sockets: Annotated[tuple[str, ...], Common()] = Field(default=(), exclude_if=lambda listed: not listed)
    require_referenced_scripts: Annotated[bool, ASKING] = Field(default=True, exclude_if=lambda required: required)
    forbid_temporary: Annotated[bool, ASKING] = Field(default=False, exclude_if=lambda forbidden: not forbidden)
    forbid_gaining: Annotated[bool, ASKING] = Field(default=False, exclude_if=lambda forbidden: not forbidden)
    preload: Annotated[tuple[str, ...] | None, Common()] = Field(
        default=None, exclude_if=lambda allowed: allowed is None
    )


def _destinations(listed: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if listed is None:
        return None
    try:
        found = tuple(map(str, shortest(map(parse, listed))))
    except InvalidInput as error:
        raise ValueError(error.sentence) from error
    return found


MOST_DESTINATIONS = 128
"""Of one policy, or of several merged: a measurer is told them in one message."""


class EgressRules(Strict):
    """What the workload's processes may connect to.

    allowed: addresses or CIDRs, with ports and a protocol where not any will do: `10.0.0.0/8:5432`,
    `[2001:db8::/32]:443`, `10.0.0.53:53/udp`. Where nobody lists any, nothing is looked for; an empty list allows
    nothing. This machine itself is always allowed, and what others opened.

    every: how often connections are looked for.

    deny: where destinations are listed, the kernel refuses (EPERM) all others before the first packet, and sockets of
    other protocols than TCP and UDP; only where policy enforces. `required`: nothing is affirmed where it cannot.
    `best-effort`: it is refused where that can be had.
    """

    allowed: Annotated[tuple[str, ...] | None, AfterValidator(_destinations), CommonDestinations()] = None
    every: Annotated[Duration, Least()] = Field(default=1.0, ge=0.1, le=60)
    deny: Annotated[Demand, Ranked((Demand.OFF, Demand.BEST_EFFORT, Demand.REQUIRED))] = Field(
        default=Demand.OFF, exclude_if=lambda deny: deny is Demand.OFF
    )

    @model_validator(mode="after")
    def _tellable(self) -> Self:
        self.bounded()
        return self

    def bounded(self) -> None:
        """Raises ValueError for more than a measurer can be told in one message."""
        if self.allowed is not None and len(self.allowed) > MOST_DESTINATIONS:
            raise ValueError(f"{len(self.allowed)} destinations, where {MOST_DESTINATIONS} are the most")


def _capability(value: object) -> object:
    if value not in CAPABILITIES:
        raise ValueError("a capability goes by its name, as capabilities(7) has it: CAP_NET_BIND_SERVICE")
    return value


CapabilityName = Annotated[
    str,
    BeforeValidator(_capability),
    WithJsonSchema({"type": "string", "title": "capability", "pattern": "^CAP_[A-Z0-9_]+$"}),
]


class CallRules(Strict):
    """How system calls are watched, where the layer `syscalls` is measured. What may be called, references say.

    watching: `lean` is free for the rest of the machine and sees no call as such, but rings of io_uring, tracers,
    writing into another one's memory; `sampled` sees every call for some seconds of each minute; `strict` every call at
    any time, which every process on the machine pays for a little. window: of each period, that `sampled` looks for.
    period: of `sampled`. kill_outside: whoever makes a call that is not referenced is ended by the kernel at once,
    before anybody is told. notified: where the workload was started under a seccomp filter that asks us
    (docs/seccomp.md), a call that the filter does not let through waits until it is told; `required`: without such a
    filter nothing is affirmed. refuse_outside: such a call fails (EPERM) where it is not referenced, and only where
    policy enforces.

    capabilities: those whose use is expected, by name: CAP_NET_BIND_SERVICE. Any other one that a process uses is told,
    once; where nobody says so uses are not looked at, for what asks for a capability takes longer while they are
    (setuid(2) some 50 to 100 ns). Of CAP_SYS_ADMIN only what it is used for in calls that administer (mounting,
    namespaces, bpf(2), keys, ioctl(2)): the kernel asks for it each time that root's memory grows.
    """

    watching: Annotated[Watching, Ranked(tuple(Watching))] = Watching.STRICT
    window: Annotated[Duration, Most()] = Field(default=5.0, ge=1)
    period: Annotated[Duration, Least()] = Field(default=60.0, ge=2)
    kill_outside: Annotated[bool, ASKING] = False
    notified: Annotated[Demand, Ranked((Demand.OFF, Demand.BEST_EFFORT, Demand.REQUIRED))] = Field(
        default=Demand.OFF, exclude_if=lambda notified: notified is Demand.OFF
    )
    refuse_outside: Annotated[bool, ASKING] = Field(default=False, exclude_if=lambda refused: not refused)
    capabilities: Annotated[tuple[CapabilityName, ...] | None, Common()] = Field(
        default=None, exclude_if=lambda allowed: allowed is None
    )

    @model_validator(mode="after")
    def _turns(self) -> Self:
        if self.window >= self.period and {"window", "period"} <= self.model_fields_set:
            raise ValueError("window is a part of period; `watching: strict` is what never rests")
        if self.refuse_outside and self.notified is Demand.OFF and "notified" in self.model_fields_set:
            raise ValueError("only a call that waits for us can be refused: `notified` is off")
        return self


class ProxyRules(Strict):
    """What the Envoy that holds the key must be, where the layer `proxy` is measured.

    require_referenced: its executable is among the reference values. require_no_tracer: nobody is attached to it.
    require_drain_now: a listener that is taken away cuts its connections (`--drain-time-s 0`). require_deny_filters:
    it has accepted filters of ours that can deny. require_resumption_off: no TLS session is resumed; only known where
    its listeners are ours (`delivery.mode: xds`).
    """

    require_referenced: Annotated[bool, ASKING] = True
    require_no_tracer: Annotated[bool, ASKING] = True
    require_drain_now: Annotated[bool, ASKING] = False
    require_deny_filters: Annotated[bool, ASKING] = False
    require_resumption_off: Annotated[bool, ASKING] = False


class CoverageDemand(Strict):
    """The least that the watchers themselves must be. grade: what holds when the sidecar dies.

    cutting: how what is open is ended. isolation: what must be guaranteed against the workload, all of it. profile: how
    much of what happens the kernel tells (docs/profiles.md).
    """

    grade: Annotated[Grade, Ranked(tuple(reversed(Grade)))] = Grade.BOUNDED_NEW_CONNECTIONS_ONLY
    cutting: Annotated[Cutting, Ranked(tuple(reversed(Cutting)))] = Cutting.CAPPED
    isolation: Annotated[tuple[Guarantee, ...], All()] = ()
    profile: Annotated[Profile, Ranked(tuple(reversed(Profile)))] = Field(
        default=Profile.RESTRICTED, exclude_if=lambda profile: profile is Profile.RESTRICTED
    )


class FlapLimit(Strict):
    """How much drift is put up with: an instance that drift closes more than `count` times within `within` takes what
    `replace` takes, from then on.

    count: closings; no limit where nobody says so. within: the time in which they are counted.
    """

    count: Annotated[int | None, LeastStated()] = Field(default=None, ge=1, le=100)
    within: Annotated[Duration, Most()] = 600.0


class RecoveryRules(Strict):
    """How traffic comes back. drift, tamper: what opens it again after a violation of that class.

    minimum_closed: how long it stays closed after a violation, whatever is affirmed meanwhile; what is affirmed opens
    when that is over.
    """

    drift: Annotated[Recovery, Ranked(tuple(Recovery))] = Recovery.AUTO
    tamper: Annotated[Recovery, Ranked(tuple(Recovery))] = Recovery.REPLACE
    minimum_closed: Annotated[Duration, Most()] = Field(default=0.0, exclude_if=lambda seconds: not seconds)
    flaps: FlapLimit = Field(default=FlapLimit(), exclude_if=lambda limit: limit == FlapLimit())


class ContainmentRules(Strict):
    """What is done to the workload itself, once its traffic is closed, where policy enforces.

    drift, tamper: after a violation of that class that is about the workload. `deny-egress` has the kernel refuse what
    its processes connect to, but for this machine, and ends what they had connected, until traffic is opened again;
    `freeze` stops all of its processes until then; `kill` ends them. forensics: after which class a bundle of what can
    be seen of the workload is kept in the sidecar's state folder, in every mode: after it is frozen, and before it is
    killed.
    """

    drift: Annotated[Containment, Ranked(tuple(Containment))] = Containment.NONE
    tamper: Annotated[Containment, Ranked(tuple(Containment))] = Containment.NONE
    forensics: Annotated[Literal["none", "tamper"], Ranked(("none", "tamper"))] = "tamper"


class PolicySpec(Strict):
    """What must hold of a workload, and what happens when it does not.

    selector: which registrations it is for; every one of its namespace, or of all in the root namespace, where it says
    nothing. mode: what happens when something does not hold. interval: between rounds. freshness: of a lease, from the
    nonce's issue. deadman: how long Envoy may stay open without a sign of life. escalate_after: how long it may take to
    acknowledge a closing before it is asked to quit, or killed. layers: how much each layer matters; files and
    processes are required where nobody names them, all others off. files: what is measured of files. processes: what
    its processes may be. syscalls: how its system calls are watched. egress: what they may connect to. memory: what
    they may execute beside referenced files. detectors: what alerts of somebody else's detectors come to. proxy: what
    the Envoy that holds the key must be. coverage: the least that the watchers must be. recovery: what opens traffic
    again. containment: what is done to the workload itself. rules: what else must be true, by name; two policies may
    state the same rule under one name, but not two. break_glass: who may open traffic for a while in spite of policy.
    on_violation: signal -> class, where it is not to be the signal's own. What is said to be drift opens again by the
    next full measurement, also where it is an event of which nothing is left to be measured.

    connections: `cut` ends what is open with every closing. `drain` lets it go on after drift, for the dead-man time
    or what is left of the lease, whichever is shorter; nothing new begins meanwhile, and what has not ended by then
    is cut. After anything but drift all is cut at once, whatever this says.

    warnings: whether a result of tier `warning` opens traffic, marked as such: a required layer was measured too long
    ago, or the watchers are less than what is asked for, and nothing speaks against the workload.

    max_unavailable: of the instances of one registration, the share that one and the same drift may close at a time;
    one at least. The others stay open, marked, until those are repaired or their lease ends. With `100%` every one
    closes at once, by itself; below it, an instance that drifts asks the authority first. Tamper closes every one.

    Durations are in seconds. Every field has the order in which it is merged with other policies'
    (policies/model/merge.py).
    """

    selector: Selector = Field(default=Selector(), exclude_if=lambda selector: selector == Selector())
    mode: Annotated[Mode, Ranked(tuple(Mode))] = Mode.OBSERVE
    interval: Annotated[Duration, Least()] = 30.0
    freshness: Annotated[Duration, Least()] = 300.0
    deadman: Annotated[Duration, Least()] = 5.0
    escalate_after: Annotated[Duration, Least()] = 0.25
    connections: Annotated[Literal["cut", "drain"], Ranked(("drain", "cut"))] = "cut"
    warnings: Annotated[Literal["close", "serve"], Ranked(("serve", "close"))] = Field(
        default="close", exclude_if=lambda warnings: warnings == "close"
    )
    max_unavailable: Annotated[Share, Most()] = Field(default=100, exclude_if=lambda share: share == 100)
    layers: Annotated[dict[Layer, LayerDemand], PerKey()] = Field(default_factory=dict)
    files: FileRules = FileRules()
    processes: ProcessRules = ProcessRules()
    syscalls: CallRules = Field(default=CallRules(), exclude_if=lambda rules: rules == CallRules())
    proxy: ProxyRules = Field(default=ProxyRules(), exclude_if=lambda rules: rules == ProxyRules())
    """Not written where it says nothing new, so that a sidecar which does not know it reads such a policy, too."""
    egress: EgressRules = Field(default=EgressRules(), exclude_if=lambda rules: rules == EgressRules())
    memory: MemoryRules = Field(default=MemoryRules(), exclude_if=lambda rules: rules == MemoryRules())
    detectors: DetectorRules = Field(default=DetectorRules(), exclude_if=lambda rules: rules == DetectorRules())
    coverage: CoverageDemand = CoverageDemand()
    recovery: RecoveryRules = RecoveryRules()
    containment: ContainmentRules = Field(
        default=ContainmentRules(), exclude_if=lambda rules: rules == ContainmentRules()
    )
    rules: Annotated[dict[RuleName, Rule], PerKey(Alike())] = Field(
        default_factory=dict, exclude_if=lambda rules: not rules
    )
    on_violation: Annotated[
        dict[SignalName, ViolationClass], PerKey(Ranked((ViolationClass.DRIFT, ViolationClass.TAMPER)))
    ] = Field(default_factory=dict, exclude_if=lambda stated: not stated)
    break_glass: BreakGlassRules = Field(default=BreakGlassRules(), exclude_if=lambda rules: rules == BreakGlassRules())

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.deadman < 0.5:
            raise ValueError("a dead-man time below 500ms trips on a busy machine")
        if any(not path.startswith("/") for path in self.files.include):
            raise ValueError("files.include takes absolute paths, as the workload sees them")
        if {"interval", "freshness"} <= self.model_fields_set:
            self.whole()
        if {"operators", "quorum"} <= self.break_glass.model_fields_set:
            self.break_glass.attainable()
        self.bounded()
        return self

    def whole(self) -> None:
        """Raises ValueError for what does not fit together; one document alone may leave its half to others."""
        if self.interval * 2 > self.freshness:
            raise ValueError("freshness must be at least twice the interval, or one lost round closes traffic")

    def bounded(self) -> None:
        """Raises ValueError for rules that together might take too long."""
        if len(self.rules) > MOST_RULES:
            raise ValueError(f"{len(self.rules)} rules for one workload, where {MOST_RULES} are the most")
        cost = sum(each.checked.cost for each in self.rules.values())
        if cost > MOST_TOTAL_COST:
            raise ValueError(f"rules that together might take {cost} units, where {MOST_TOTAL_COST} are the most")

    def opens(self, tier: Tier) -> bool:
        """May a result of this tier open traffic, where policy enforces?"""
        return tier is Tier.AFFIRMING or (tier is Tier.WARNING and self.warnings == "serve")

    @property
    def holds(self) -> bool:
        """Whether an instance that drifts may be held open, where enough others are closed for the same."""
        return self.mode is Mode.ENFORCE and self.max_unavailable < 100

    @property
    def gate(self) -> Demand:
        """Of a gate before executions: nothing is refused that policy would not close for."""
        return self.processes.gate if self.mode is Mode.ENFORCE else Demand.OFF

    @property
    def notified(self) -> Demand:
        """Of a seccomp filter that asks us, where calls are measured."""
        return self.syscalls.notified if self.demand(Layer.SYSCALLS) is not Demand.OFF else Demand.OFF

    @property
    def refuses(self) -> bool:
        """Whether it fails what it does not reference and waits for us: nothing that policy would not close for."""
        return self.notified is not Demand.OFF and self.syscalls.refuse_outside and self.mode is Mode.ENFORCE

    @property
    def denies(self) -> Demand:
        """Of a fence that refuses what is not listed: nothing is refused that policy would not close for."""
        listed = self.egress.allowed is not None and self.demand(Layer.PROCESSES) is not Demand.OFF
        return self.egress.deny if listed and self.mode is Mode.ENFORCE else Demand.OFF

    @property
    def fence(self) -> Demand:
        """Of a fence that can be shut, or refuses what is not listed."""
        shut = Containment.DENY_EGRESS in (self.containment.drift, self.containment.tamper)
        return Demand.REQUIRED if shut and self.mode is Mode.ENFORCE else self.denies

    def violation_class(self, signal: Signal) -> ViolationClass:
        """What a finding or a violation of this kind is: by this policy, else by default."""
        return self.on_violation.get(signal, signal.default)

    def layer(self, layer: Layer) -> LayerDemand:
        """What is asked of a layer."""
        return self.layers.get(layer) or DEFAULT_LAYERS.get(layer) or _OFF

    def demand(self, layer: Layer) -> Demand:
        """What this policy asks of a layer; one that neither it nor DEFAULT_LAYERS names is off."""
        return self.layer(layer).demand


DEFAULT_LAYERS: Mapping[Layer, LayerDemand] = {Layer.FILES: LayerDemand(), Layer.PROCESSES: LayerDemand()}
_OFF = LayerDemand(demand=Demand.OFF)


class AttestationPolicy(Document):
    """As it is written. Those for one workload, merged, are an EffectivePolicy."""

    kind: Literal["AttestationPolicy"] = "AttestationPolicy"
    spec: PolicySpec = PolicySpec()


class EffectivePolicy(AttestationPolicy, title=AttestationPolicy.__name__):
    """Every policy for one workload, merged. Named as the most specific of them.

    origins: place in the spec -> those that the value there comes from; a place that is not here is a default.
    """

    model_config = ConfigDict(title="AttestationPolicy")  # what faults in it are faults of

    origins: dict[str, tuple[Metadata, ...]] = Field(default_factory=dict, exclude_if=lambda origins: not origins)

    def stated_by(self, place: str) -> tuple[Metadata, ...]:
        """The documents behind the place itself, else behind the first thing in it, else behind what it is in."""
        if place in self.origins:
            return self.origins[place]
        inside = next((found for each, found in self.origins.items() if each.startswith(f"{place}.")), None)
        if inside is not None:
            return inside
        around, _, _ = place.rpartition(".")
        return self.stated_by(around) if around else (self.metadata,)
