"""The sidecar's judgement of one fact, through the same checks as the verifier's judgement of a layer."""

from __future__ import annotations

from dataclasses import replace

from attestation import coverage
from attestation.coverage import DETECTORS
from attestation.facts import (
    Actor,
    AlertFact,
    CallFact,
    CapabilityFact,
    CollectorFact,
    CollectorState,
    EgressFact,
    ExecutionFact,
    Fact,
    FileChange,
    FileFact,
    MemoryFact,
    MountFact,
    PreloadFact,
    ProcessAspect,
    ProcessFact,
    ProxyFact,
    RefusalFact,
    ScriptFact,
    StdioFact,
)
from attestation.layers import Layer
from attestation.manifest import FILE, LINK, NO_DIGEST, Entry, capabilities_of
from attestation.signals import Signal
from attestation.violation import Violation
from policies.appraise import allowing, detectors, sockets
from policies.appraise.begun import check_gaining, check_preload, check_script, check_temporary
from policies.appraise.labels import confines_less
from policies.appraise.layers import (
    check_call,
    check_capability,
    check_executable,
    check_file,
    check_written,
    exceeds,
    gravest,
    judged,
    missing_file,
    projected,
)
from policies.appraise.memory import check_code
from policies.appraise.proxy import check_proxy
from policies.appraise.reasons import Finding
from policies.model.places import rule
from policies.model.policy import AttestationPolicy, Demand
from policies.model.references import ReferenceValues


def violates(fact: Fact, policy: AttestationPolicy, references: ReferenceValues) -> Violation | None:
    """The violation that this fact is under this policy, or None. Never reads anything but its arguments."""
    if isinstance(fact, FileFact):
        return _file(fact, policy, references)
    if isinstance(fact, MountFact):
        return _mount(fact, policy)
    if isinstance(fact, ExecutionFact):
        return _execution(fact, policy, references)
    if isinstance(fact, RefusalFact):
        return _refusal(fact, policy, references)
    if isinstance(fact, ScriptFact | PreloadFact):
        return _begun(fact, policy, references)
    if isinstance(fact, ProcessFact):
        return _process(fact, policy)
    if isinstance(fact, CallFact):
        return _call(fact, policy, references)
    if isinstance(fact, CapabilityFact):
        return _capability(fact, policy)
    if isinstance(fact, StdioFact):
        return sockets.stdio(fact, policy)
    if isinstance(fact, EgressFact):
        return sockets.egress(fact, policy)
    if isinstance(fact, CollectorFact):
        return _collector(fact, policy)
    if isinstance(fact, ProxyFact):
        return _proxy(fact, policy, references)
    if isinstance(fact, MemoryFact):
        return _memory(fact, policy, references)
    if isinstance(fact, AlertFact):
        return detectors.alerted(fact, policy)
    return None


def undecided(fact: Fact, policy: AttestationPolicy) -> bool:
    """May what this fact is a part of be a violation, as only the whole measurement tells?"""
    if not isinstance(fact, FileFact) or policy.spec.demand(Layer.FILES) is Demand.OFF:
        return False
    return projected(fact.path, policy)


def _file(fact: FileFact, policy: AttestationPolicy, references: ReferenceValues) -> Violation | None:
    if policy.spec.demand(Layer.FILES) is Demand.OFF:
        return None
    if fact.change is FileChange.WRITTEN:
        finding = check_written(fact.path, policy)
    elif fact.change is FileChange.REMOVED:
        if fact.path not in references.spec.files:
            return None
        finding = missing_file(fact.path, policy, references)
    else:
        kind, digest = LINK if fact.link else FILE, fact.digest or NO_DIGEST
        finding = check_file(
            Entry(fact.path, kind, fact.mode, fact.uid, fact.gid, 0, digest), policy, references, fact.capabilities
        )
        if finding is None and fact.capabilities:
            finding = check_file(capabilities_of(fact.path, fact.capabilities), policy, references)
    by = f", by {fact.actor.executable or 'pid'} ({fact.actor.pid})" if fact.actor else ""
    return _violation(finding, fact.at, by, fact.actor) if finding else None


def _mount(fact: MountFact, policy: AttestationPolicy) -> Violation | None:
    """Whatever is mounted over what is measured, over a part of it, or over what it lies in, is no state of a file."""
    if policy.spec.demand(Layer.FILES) is Demand.OFF or not _covers_measured(fact.path, policy):
        return None
    what = f"{fact.kind or 'something'} was {'mounted' if fact.mounted else 'taken away'}"
    return Violation(
        Signal.MOUNT_CHANGED,
        policy.spec.violation_class(Signal.MOUNT_CHANGED),
        Layer.FILES,
        fact.path,
        f"{fact.path or 'a path unknown, and it is gone again'}: {what}",
        fact.at,
        rule(policy, "files.include"),
        "Mount what belongs there before the workload starts.",
    )


def _covers_measured(path: str, policy: AttestationPolicy) -> bool:
    folder = path.rstrip("/")
    over = any(each == folder or each.startswith(f"{folder}/") for each in policy.spec.files.include)
    return over or (judged(path, policy) and judged(f"{folder}/*", policy))


def _execution(fact: ExecutionFact, policy: AttestationPolicy, references: ReferenceValues) -> Violation | None:
    if policy.spec.demand(Layer.PROCESSES) is Demand.OFF:
        return None
    executable = check_executable(fact.path, fact.digest, fact.deleted, policy, references)
    each = (check_temporary(fact, policy), executable, check_gaining(fact, policy))
    finding = gravest(found for found in each if found is not None)
    by = f", as pid {sockets.pids(fact.process, fact.pid_inside)}"
    return _violation(finding, fact.at, by, fact.process) if finding else None


def _memory(fact: MemoryFact, policy: AttestationPolicy, references: ReferenceValues) -> Violation | None:
    if policy.spec.demand(Layer.MEMORY) is Demand.OFF:
        return None
    finding = check_code(fact.code, policy, references)
    by = f", in {fact.process.executable or 'pid'} ({sockets.pids(fact.process, fact.pid_inside)})"
    by += f"; attached: {fact.tracer}" if fact.tracer else ""
    by += f"; {fact.why}" if fact.why else ""
    return _violation(finding, fact.at, by, fact.process) if finding else None


def _call(fact: CallFact, policy: AttestationPolicy, references: ReferenceValues) -> Violation | None:
    if policy.spec.demand(Layer.SYSCALLS) is Demand.OFF:
        return None
    finding = check_call(fact.call, policy, references)
    by = ", refused" if fact.refused else ""
    by += f", by {fact.process.executable or 'pid'} ({sockets.pids(fact.process, fact.pid_inside)})"
    return _violation(finding, fact.at, by, fact.process) if finding else None


def _capability(fact: CapabilityFact, policy: AttestationPolicy) -> Violation | None:
    if policy.spec.demand(Layer.SYSCALLS) is Demand.OFF:
        return None
    finding = check_capability(fact.capability, policy)
    by = f"; in {fact.call}" if fact.call else ""
    by += f", by {fact.process.executable or 'pid'} ({sockets.pids(fact.process, fact.pid_inside)})"
    return _violation(finding, fact.at, by, fact.process) if finding else None


def _begun(fact: ScriptFact | PreloadFact, policy: AttestationPolicy, references: ReferenceValues) -> Violation | None:
    if policy.spec.demand(Layer.PROCESSES) is Demand.OFF:
        return None
    if isinstance(fact, ScriptFact):
        finding = check_script(fact, policy, references)
    else:
        finding = check_preload(fact, policy, references)
    by = f", by {fact.process.executable or 'a process'} ({sockets.pids(fact.process, fact.pid_inside)})"
    return _violation(finding, fact.at, by, fact.process) if finding else None


def _refusal(fact: RefusalFact, policy: AttestationPolicy, references: ReferenceValues) -> Violation | None:
    """None where the policy in force by now allows it: the list was of an earlier one."""
    if policy.spec.demand(Layer.PROCESSES) is Demand.OFF:
        return None
    finding = check_executable(fact.path, fact.digest, fact.deleted, policy, references)
    if finding is None:
        return None
    kind = Signal.EXECUTION_REFUSED
    refused = replace(
        finding,
        kind=kind,
        finding_class=policy.spec.violation_class(kind),
        found="it was refused before it ran",
        mend="Find out who wanted to run it; if it is meant to run, allow it first.",
    )
    by = f"; wanted by {fact.process.executable or 'pid'} ({sockets.pids(fact.process, fact.pid_inside)})"
    return _violation(refused, fact.at, by, fact.process)


def _proxy(fact: ProxyFact, policy: AttestationPolicy, references: ReferenceValues) -> Violation | None:
    """The gravest of what is found; a round tells the others."""
    if policy.spec.demand(Layer.PROXY) is Demand.OFF:
        return None
    finding = next(iter(check_proxy(fact.proxy, policy, references)), None)
    by = f", as pid {fact.process.pid}" + (f"; attached: {fact.tracer}" if fact.tracer else "")
    return _violation(finding, fact.at, by, fact.process) if finding else None


def _violation(finding: Finding, at: float, by: str, process: Actor | None) -> Violation:
    return Violation(
        finding.kind,
        finding.finding_class,
        finding.layer,
        finding.subject,
        finding.text + by,
        at,
        finding.rule,
        finding.mend,
        process,
        finding.allow,
        finding.exact,
    )


def _process(fact: ProcessFact, policy: AttestationPolicy) -> Violation | None:
    if policy.spec.demand(Layer.PROCESSES) is Demand.OFF or not _worse(fact):
        return None
    kind, pids = Signal[f"PROCESS_{fact.aspect.name}"], sockets.pids(fact.process, fact.pid_inside)
    return Violation(
        kind,
        policy.spec.violation_class(kind),
        Layer.PROCESSES,
        fact.process.executable,
        f"{fact.process.executable} ({pids}): {fact.aspect} went from {fact.before} to {fact.after}",
        fact.at,
        rule(policy, "processes"),
        "Start a new instance.",
        fact.process,
        found=f"{fact.aspect} went from {fact.before} to {fact.after}",
    )


def _worse(fact: ProcessFact) -> bool:
    """Dropping privileges is what careful programs do; gaining any, or being watched, is not."""
    match fact.aspect:
        case ProcessAspect.CAPABILITIES:
            return exceeds(fact.after, fact.before)
        case ProcessAspect.USER:
            return fact.after.split(":")[0] == "0"
        case ProcessAspect.TRACER:
            return fact.after not in ("", "0")
        case ProcessAspect.SECCOMP | ProcessAspect.NO_NEW_PRIVILEGES:
            return fact.after < fact.before
        case ProcessAspect.LABEL:
            return confines_less(fact.before, fact.after)
        case ProcessAspect.NAMESPACES | ProcessAspect.SCOPE | ProcessAspect.UNMEASURED | ProcessAspect.WRITTEN:
            return True


def _collector(fact: CollectorFact, policy: AttestationPolicy) -> Violation | None:
    """A collector that lost events or died may have missed anything: as bad as the worst drift."""
    if fact.collector.startswith(DETECTORS):
        return detectors.silent(fact, policy)
    layer = next((each for each in Layer if fact.collector.startswith(each)), Layer.ATTESTER)
    demand, place, allow = _asked_of(fact.collector, layer, policy)
    judged = layer is Layer.ATTESTER or demand is Demand.REQUIRED
    if fact.state is CollectorState.RUNNING or not judged:
        return None
    kind = Signal[f"COLLECTOR_{fact.state.name}"]
    return Violation(
        kind,
        policy.spec.violation_class(kind),
        layer,
        fact.collector,
        f"the collector {fact.collector} is {fact.state}{': ' + fact.detail if fact.detail else ''}",
        fact.at,
        place,
        "A full measurement taken from now on shows what was missed.",
        allow=allow,
    )


def _asked_of(collector: str, layer: Layer, policy: AttestationPolicy) -> tuple[Demand, str, str]:
    """What policy asks of it, where it says so, and what would make do without."""
    match collector:
        case coverage.GATE:
            return policy.spec.gate, rule(policy, "processes.gate"), allowing.ungated(policy)
        case coverage.NOTIFIED:
            return policy.spec.notified, rule(policy, "syscalls.notified"), allowing.unnotified(policy)
        case coverage.FENCE:
            return policy.spec.fence, *sockets.asked_of_fence(policy)
        case _:
            return policy.spec.demand(layer), rule(policy, "layers", layer), allowing.unmeasured(layer, policy)
