"""The summary that rules see (policies/model/seen.py), out of claims, the layers behind them and what governs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from attestation import calls, manifest, memory, processes, proxy
from attestation.capabilities import CAPABILITIES
from attestation.claims import Claims, LayerClaim
from attestation.coverage import CollectorCoverage
from attestation.digests import Digest
from attestation.layers import Layer
from attestation.memory import CodeKind
from attestation.processes import ProcessKind
from attestation.tally import Tally, amount
from policies.appraise.files import Files
from policies.model import seen
from policies.model.governing import Governing
from policies.model.policy import Demand
from policies.model.references import ReferenceValues
from policies.model.rules import Rule
from policies.model.seen import AGES, OLDEST, SECCOMP, Summary

_SETUID_OR_SETGID, _WORLD_WRITABLE = 0o6000, 0o002


def summarise(
    claims: Claims,
    bodies: Mapping[Digest, bytes],
    governing: Governing,
    *,
    count_files: bool = True,
    files: Files | None = None,
) -> Summary:
    """bodies: as `appraise` has them. count_files: whether any rule looks at how many files there are.

    files: their layer, for whoever has it already.
    """
    registration = governing.registration
    layers = {each.layer: _Layer.of(each, bodies) for each in claims.layers if _measured(each, bodies, governing)}
    return Summary(
        registration=seen.Registration(
            name=registration.metadata.name,
            namespace=registration.metadata.namespace,
            labels=dict(registration.metadata.labels),
            spiffe_id=registration.spec.spiffe_id,
        ),
        files=_files(layers.get(Layer.FILES, _MISSING), files, count=count_files),
        processes=_processes(layers.get(Layer.PROCESSES, _MISSING)),
        proxy=_proxy(layers.get(Layer.PROXY, _MISSING), governing.references),
        memory=_memory(layers.get(Layer.MEMORY, _MISSING)),
        calls=_calls(layers.get(Layer.SYSCALLS, _MISSING), seen_pace(claims)),
        coverage=seen.Coverage(
            grade=claims.coverage.grade,
            cutting=claims.coverage.cutting,
            profile=claims.coverage.profile,
            isolation=tuple(sorted(claims.coverage.isolation.guarantees)),
            absent=claims.coverage.absent,
            collectors=tuple(map(_collector, claims.coverage.collectors)),
        ),
    )


def counts_files(rules: Iterable[Rule]) -> bool:
    """Does any of these rules look at how many files there are of some sort? Counting takes a while."""
    return any(place.startswith("files.") and place not in _UNCOUNTED for rule in rules for place in rule.checked.seen)


_UNCOUNTED = ("files.measured", "files.age", "files.fullAge", "files.digest")


def sees_pace(rules: Iterable[Rule]) -> bool:
    """Does any of these rules look at what of calls is in no digest?"""
    return any(place in _PACED for rule in rules for place in rule.checked.seen)


_PACED = ("calls.rate", "calls.peak", "calls.events", "calls.outside")


def seen_pace(claims: Claims) -> tuple[int, int, int, int]:
    """What is claimed of calls beside their layer, as rules see it: rate, peak, events, outside."""
    tally = claims.calls or Tally()
    return amount(tally.rate), amount(tally.peak), amount(tally.events), len(tally.offences) + tally.more


def seen_ages(claim: LayerClaim) -> tuple[int, int]:
    """Both ages of a layer as rules see them, which is all that they see of a claim beside its digest."""
    return _rounded_up(claim.age_ms), _rounded_up(claim.full_age_ms)


def _rounded_up(milliseconds: int) -> int:
    return next((each for each in AGES if milliseconds <= each), OLDEST)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer that is measured, or _MISSING."""

    measured: bool
    body: bytes
    digest: Digest
    age: int
    full_age: int

    @classmethod
    def of(cls, claim: LayerClaim, bodies: Mapping[Digest, bytes]) -> _Layer:
        return cls(True, bodies[claim.digest], claim.digest, *seen_ages(claim))


_MISSING = _Layer(False, b"", "", OLDEST, OLDEST)


def _measured(claim: LayerClaim, bodies: Mapping[Digest, bytes], governing: Governing) -> bool:
    return claim.digest in bodies and governing.policy.spec.demand(claim.layer) is not Demand.OFF


def _files(layer: _Layer, files: Files | None, *, count: bool) -> seen.Files:
    tally = (files or Files(layer.body)).tally if layer.measured and count else {}
    of = dict.fromkeys(manifest.KINDS, 0)
    setuid = writable = 0
    for (kind, mode), number in tally.items():
        of[kind] += number
        if kind == manifest.FILE:
            setuid += number if mode & _SETUID_OR_SETGID else 0
            writable += number if mode & _WORLD_WRITABLE else 0
    return seen.Files(
        measured=layer.measured,
        age=layer.age,
        full_age=layer.full_age,
        digest=layer.digest,
        count=of[manifest.FILE],
        links=of[manifest.LINK],
        folders=of[manifest.DIRECTORY],
        others=of[manifest.OTHER],
        setuid=setuid,
        world_writable=writable,
    )


def _processes(layer: _Layer) -> seen.Processes:
    kinds = processes.unpack(layer.body) if layer.measured else ()
    return seen.Processes(
        measured=layer.measured,
        age=layer.age,
        full_age=layer.full_age,
        digest=layer.digest,
        root=sum(each.uid == 0 for each in kinds),
        privileged=sum(int(each.capabilities, 16) != 0 for each in kinds),
        kinds=tuple(map(_kind, kinds)),
    )


def _kind(kind: ProcessKind) -> seen.Kind:
    capabilities = int(kind.capabilities, 16)
    return seen.Kind(
        executable=kind.executable,
        digest=kind.digest,
        loader=kind.loader,
        loader_digest=kind.loader_digest,
        uid=kind.uid,
        gid=kind.gid,
        capabilities=tuple(name for bit, name in enumerate(CAPABILITIES) if capabilities >> bit & 1),
        no_new_privileges=kind.no_new_privileges,
        seccomp=SECCOMP[kind.seccomp],
        deleted=kind.deleted,
    )


def _proxy(layer: _Layer, references: ReferenceValues) -> seen.Proxy:
    found = proxy.unpack(layer.body) if layer.measured else None
    unknown = proxy.Known.UNKNOWN
    return seen.Proxy(
        measured=layer.measured,
        age=layer.age,
        full_age=layer.full_age,
        seated=found is not None,
        executable=found.process.executable if found else "",
        version=_version(found.process.executable, references) if found else "",
        traced=found.process.traced if found else unknown,
        dumpable=found.process.dumpable if found else unknown,
        drains_at_once=found.process.drains_at_once if found else unknown,
        delivered=found.delivered if found else "",
        denial=found.denial if found else "",
        filters=found.filters if found else (),
        resumption_off=found.resumption_off if found else unknown,
    )


def _version(executable: Digest, references: ReferenceValues) -> str:
    known = (version for version, digests in references.spec.proxies.items() if executable in digests)
    return next(known, "")


def _memory(layer: _Layer) -> seen.Memory:
    code = memory.unpack(layer.body) if layer.measured else ()
    loose = [each for each in code if each.kind in (CodeKind.ANONYMOUS, CodeKind.MEMFD)]
    return seen.Memory(
        measured=layer.measured,
        age=layer.age,
        full_age=layer.full_age,
        digest=layer.digest,
        files=len({(each.path, each.digest) for each in code if each.kind is CodeKind.FILE}),
        compilers=len({each.executable for each in loose}),
        writable=sum(each.writable for each in code),
        patched=sum(each.kind in (CodeKind.PATCHED, CodeKind.PROBED) for each in code),
    )


def _calls(layer: _Layer, pace: tuple[int, int, int, int]) -> seen.Calls:
    made = calls.unpack(layer.body) if layer.measured else None
    rate, peak, events, outside = pace if made is not None else (0, 0, 0, 0)
    return seen.Calls(
        measured=layer.measured,
        age=layer.age,
        full_age=layer.full_age,
        digest=layer.digest,
        watching=made.watching if made is not None else "",
        made=made.calls if made is not None else (),
        rate=rate,
        peak=peak,
        events=events,
        outside=outside,
    )


def _collector(collector: CollectorCoverage) -> seen.Collector:
    return seen.Collector(
        name=collector.name,
        layer=collector.layer,
        mechanism=collector.mechanism,
        latency=ceil(collector.latency_ms) if collector.latency_ms <= OLDEST else OLDEST,
        running=collector.running,
        lost=collector.lost,
    )
