"""The claims and facts that a case describes, as a measurer and a sidecar would have made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attestation import digests, manifest, memory, processes, proxy
from attestation.bodies import DIGEST_OF
from attestation.claims import Claims, LayerClaim
from attestation.coverage import (
    EGRESS,
    EXECUTIONS,
    FENCE,
    GATE,
    NOTIFIED,
    CollectorCoverage,
    Coverage,
    Guarantee,
    Isolation,
    Mechanism,
    Profile,
)
from attestation.detectors.alerts import Alert
from attestation.digests import Digest
from attestation.facts import (
    Actor,
    AlertFact,
    CollectorFact,
    EgressFact,
    ExecutionFact,
    Fact,
    FileChange,
    FileFact,
    Passage,
    PreloadFact,
    ProcessFact,
    ProxyFact,
    RefusalFact,
    ScriptFact,
    Sighting,
    StdioFact,
)
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.manifest import NO_DIGEST, Entry
from attestation.memory import Code, CodeKind
from attestation.processes import ProcessKind
from attestation.proxy import Proxy, ProxyProcess
from policies.appraise.detectors import name_of
from policies.author.cases import (
    Alerted,
    Executed,
    FileHappened,
    GivenClaims,
    GivenCoverage,
    GivenFact,
    GivenFile,
    GivenProxy,
    Preloaded,
    ScriptRan,
)
from policies.model.governing import Governing
from policies.model.policy import Demand
from policies.model.references import EffectiveReferences, FileReference

_KINDS = {"file": manifest.FILE, "link": manifest.LINK, "folder": manifest.DIRECTORY, "other": manifest.OTHER}
_INSTANCE = InstanceId("i-" + "0" * 32)
_WATCHED_BY = {
    Profile.FULL: {Layer.FILES: Mechanism.FANOTIFY, Layer.PROCESSES: Mechanism.PROC_CONNECTOR},
    Profile.CONTAINED: {Layer.FILES: Mechanism.FANOTIFY, Layer.PROCESSES: Mechanism.FANOTIFY},
    Profile.RESTRICTED: {Layer.FILES: Mechanism.INOTIFY},
}
_SOMEBODY = 4242
"""A pid."""


def claims(given: GivenClaims, governing: Governing) -> tuple[Claims, dict[Digest, bytes]]:
    """Claims with the packed layers behind them."""
    entries, kinds = _entries(given, governing.references), _processes(given, governing.references)
    seated = _seated(given, governing)
    packed = {
        Layer.FILES: (manifest.pack(entries), len(entries)),
        Layer.PROCESSES: (processes.pack(kinds), len(kinds)),
        Layer.PROXY: (proxy.pack(seated), int(seated is not None)),
    }
    if governing.policy.spec.demand(Layer.MEMORY) is not Demand.OFF:
        code = _code(kinds)
        packed[Layer.MEMORY] = (memory.pack(code), len(code))
    measured = {layer: each for layer, each in packed.items() if layer not in given.coverage.absent}
    made = tuple(_claim(layer, DIGEST_OF[layer](body), items, given) for layer, (body, items) in measured.items())
    bodies = {DIGEST_OF[layer](body): body for layer, (body, _) in measured.items()}
    return Claims(_INSTANCE, 1, 0, 1, 0, b"", "", made, _coverage(given.coverage, tuple(measured), governing)), bodies


def fact(given: GivenFact, governing: Governing) -> Fact:
    """The fact, at an instant that nobody looks at."""
    references = governing.references
    if given.file is not None:
        return _file_fact(given.file, references)
    if given.execution is not None:
        return _execution(given.execution, references)
    if given.script is not None:
        return _script(given.script, references)
    if given.preload is not None:
        return _preload(given.preload, references)
    if given.process is not None:
        who = Actor(_SOMEBODY, given.process.executable)
        return ProcessFact(0.0, who, given.process.aspect, given.process.before, given.process.after)
    if given.stdio is not None:
        return StdioFact(0.0, Actor(_SOMEBODY, given.stdio.executable), (0, 1, 2), "TCP", given.stdio.opened)
    if given.egress is not None:
        to = given.egress
        passage = Passage.REFUSED if to.refused else Passage.MADE
        who = Actor(_SOMEBODY, to.executable)
        return EgressFact(0.0, who, to.protocol, str(to.host), to.port, passage=passage)
    if given.alert is not None:
        return _alert(given.alert)
    if given.collector is not None:
        return CollectorFact(0.0, given.collector.name, given.collector.state)
    seated = _proxy(given.proxy or GivenProxy(), references)
    return ProxyFact(0.0, seated, Actor(_SOMEBODY))


def _claim(layer: Layer, digest: Digest, items: int, given: GivenClaims) -> LayerClaim:
    stated = given.ages.get(layer)
    age = stated.age if stated is not None else 0.0
    full = stated.full if stated is not None and stated.full is not None else age
    return LayerClaim(layer, digest, Method.FULL, round(age * 1000), round(full * 1000), items)


# --- files ---


def _entries(given: GivenClaims, references: EffectiveReferences) -> list[Entry]:
    version = _of_version(given.version, references)
    entries = {path: _entry(path, GivenFile(), each) for path, each in version.items()}
    if given.base == "nothing":
        entries.clear()
    for path, file in given.files.items():
        if file.content == "absent":
            entries.pop(path, None)
        else:
            entries[path] = _entry(path, file, version.get(path, references.spec.files.get(path)))
    return list(entries.values())


def _of_version(version: str | None, references: EffectiveReferences) -> Mapping[str, FileReference]:
    """The files of one version; what is of another one only is not there."""
    files = dict(references.spec.files)
    for rollout in references.rollouts:
        label = version if version in rollout.versions else next(iter(rollout.versions))
        chosen = rollout.versions[label or ""]
        for path in {path for stated in rollout.versions.values() for path in stated}:
            if path in chosen:
                files[path] = chosen[path][0]
            else:
                files.pop(path, None)
    return files


def _entry(path: str, given: GivenFile, reference: FileReference | None) -> Entry:
    mode = given.mode if given.mode is not None else _or(reference.mode if reference else None, 0o644)
    uid = given.uid if given.uid is not None else _or(reference.uid if reference else None, 0)
    gid = given.gid if given.gid is not None else _or(reference.gid if reference else None, 0)
    digest = _content(given.content, reference.digests if reference else (), path)
    readable = given.kind in ("file", "link") and given.content != "unreadable"
    return Entry(path, _KINDS[given.kind], mode, uid, gid, 0, digest if readable else NO_DIGEST)


def _or(stated: int | None, otherwise: int) -> int:
    return otherwise if stated is None else stated


def _content(content: str, referenced: tuple[Digest, ...], path: str) -> Digest:
    """A digest for a word; where nothing is referenced, one that nothing else has."""
    if content == "referenced" and referenced:
        return referenced[0]
    if content in ("referenced", "changed"):
        return digests.of_content(f"not what is referenced: {path}".encode())
    return "" if content in ("unreadable", "absent") else content


# --- processes, proxy, watchers ---


def _processes(given: GivenClaims, references: EffectiveReferences) -> list[ProcessKind]:
    known = references.spec.executables
    stated = {each.executable for each in given.processes}
    base = [path for path in known if path not in stated] if given.base == "referenced" else []
    kinds = [_kind(path, known[path][0]) for path in base]
    return kinds + [
        ProcessKind(
            executable=each.executable,
            digest=_content(each.content, known.get(each.executable, ()), each.executable),
            loader=each.loader,
            loader_digest=_content(each.loader_content, known.get(each.loader, ()), each.loader) if each.loader else "",
            uid=each.uid,
            gid=each.gid,
            capabilities=each.capabilities,
            no_new_privileges=each.no_new_privileges,
            seccomp=each.seccomp,
            namespaces=(),
            deleted=each.deleted,
        )
        for each in given.processes
    ]


def _kind(executable: str, digest: Digest) -> ProcessKind:
    return ProcessKind(executable, digest, "", "", 1000, 1000, "0", True, 2, ())


def _code(kinds: Sequence[ProcessKind]) -> list[Code]:
    """The processes' own programs, and nothing else: no case says more of memory."""
    return [Code(CodeKind.FILE, path=each.executable, digest=each.digest) for each in kinds if not each.deleted]


def _seated(given: GivenClaims, governing: Governing) -> Proxy | None:
    asked = governing.policy.spec.demand(Layer.PROXY) is not Demand.OFF and given.base == "referenced"
    if given.proxy is None:
        return _proxy(GivenProxy(), governing.references) if asked else None
    return None if given.proxy.absent else _proxy(given.proxy, governing.references)


def _proxy(given: GivenProxy, references: EffectiveReferences) -> Proxy:
    known = tuple(digest for each in references.spec.proxies.values() for digest in each)
    process = ProxyProcess(
        executable=_content(given.content, known, "envoy"),
        traced=given.traced,
        dumpable=given.dumpable,
        drains_at_once=given.drains_at_once,
    )
    return Proxy(process, given.delivered, given.denial, tuple(sorted(given.filters)), given.resumption_off)


def _coverage(given: GivenCoverage, measured: tuple[Layer, ...], governing: Governing) -> Coverage:
    mechanisms = _WATCHED_BY[given.profile]
    watched = tuple(
        CollectorCoverage(
            EXECUTIONS if layer is Layer.PROCESSES else layer.value,
            layer,
            mechanisms.get(layer, Mechanism.POLL),
            1.0,
            running=layer not in given.dead,
        )
        for layer in measured
    )
    if governing.policy.spec.egress.allowed is not None and Layer.PROCESSES in measured:
        runs = Layer.PROCESSES not in given.dead
        watched = (*watched, CollectorCoverage(EGRESS, Layer.PROCESSES, Mechanism.POLL, 1000.0, running=runs))
    for detector in governing.policy.spec.detectors.sources:
        heard = detector not in given.silent
        watched += (CollectorCoverage(name_of(detector), Layer.ATTESTER, Mechanism.DETECTOR, 0.0, running=heard),)
    absent = tuple(layer for layer in Layer if layer not in measured)
    if given.gate and Layer.PROCESSES in measured:
        watched += (CollectorCoverage(GATE, Layer.PROCESSES, Mechanism.FANOTIFY, 0.0, running=True),)
    if given.fence and Layer.PROCESSES in measured:
        watched += (CollectorCoverage(FENCE, Layer.PROCESSES, Mechanism.BPF, 0.0, running=True),)
    if given.notified and Layer.SYSCALLS in measured:
        watched += (CollectorCoverage(NOTIFIED, Layer.SYSCALLS, Mechanism.SECCOMP, 0.0, running=True),)
    return Coverage(watched, absent, given.cutting, given.grade, _isolation(frozenset(given.isolation)))


def _isolation(held: frozenset[Guarantee]) -> Isolation:
    """The one whose guarantees these are."""
    return Isolation(
        non_dumpable=Guarantee.NON_DUMPABLE in held,
        distinct_user=Guarantee.DISTINCT_USER in held,
        workload_can_trace=Guarantee.NO_TRACING not in held,
        shared_pid_namespace=Guarantee.OWN_PID_NAMESPACE not in held,
        workload_can_become_us=Guarantee.NO_IMPERSONATION not in held,
        envoy_non_dumpable=Guarantee.ENVOY_NON_DUMPABLE in held,
        envoy_distinct_user=Guarantee.ENVOY_DISTINCT_USER in held,
        workload_can_trace_envoy=Guarantee.ENVOY_NO_TRACING not in held,
    )


# --- facts ---


def _file_fact(given: FileHappened, references: EffectiveReferences) -> FileFact:
    reference = references.spec.files.get(given.path)
    file = GivenFile(content=given.content, mode=given.mode, uid=given.uid, gid=given.gid)
    entry = _entry(given.path, file, reference)
    gone = given.change in (FileChange.REMOVED, FileChange.UNREADABLE) or given.content in ("unreadable", "absent")
    digest = "" if gone else entry.digest
    return FileFact(0.0, given.path, given.change, digest, entry.mode, entry.uid, entry.gid)


def _execution(given: Executed, references: EffectiveReferences) -> ExecutionFact | RefusalFact:
    digest = _content(given.content, references.spec.executables.get(given.path, ()), given.path)
    if given.refused:
        return RefusalFact(0.0, given.path, digest, Actor(_SOMEBODY), given.deleted)
    told = (Sighting.EVENT, given.deleted, 0, given.temporary, given.gains)
    return ExecutionFact(0.0, given.path, digest, Actor(_SOMEBODY, given.path), *told)


def _script(given: ScriptRan, references: EffectiveReferences) -> ScriptFact:
    digest = _content(given.content, _known(given.path, references), given.path)
    return ScriptFact(0.0, given.path, digest, Actor(_SOMEBODY), Sighting.EVENT, given.deleted)


def _preload(given: Preloaded, references: EffectiveReferences) -> PreloadFact:
    path = given.path if given.path is not None else given.entry
    digest = _content(given.content, _known(path, references), path)
    return PreloadFact(0.0, given.source, given.entry, Actor(_SOMEBODY), path, digest)


def _alert(given: Alerted) -> AlertFact:
    alert = Alert(
        given.detector,
        given.rule,
        given.text,
        0,
        priority=given.priority,
        tags=given.tags,
        executable=given.executable,
    )
    return AlertFact(0.0, alert, given.named)


def _known(path: str, references: EffectiveReferences) -> tuple[Digest, ...]:
    file = references.spec.files.get(path)
    return (*references.spec.executables.get(path, ()), *(file.digests if file is not None else ()))
