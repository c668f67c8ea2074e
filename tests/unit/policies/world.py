"""One small world for the policy tests: a workload with two files and an interpreter."""

from __future__ import annotations

from attestation import calls, manifest, processes
from attestation.calls import CallsMade
from attestation.claims import Claims, LayerClaim
from attestation.coverage import CollectorCoverage, Coverage, Cutting, Grade, Isolation, Mechanism
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.manifest import FILE, Entry
from attestation.processes import ProcessKind
from policies.model.governing import Governing
from policies.model.inheritance import effective
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import FileReference, ReferenceSpec, ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration

MAIN, PAGE, PYTHON, LOADER = "/srv/app/main.py", "/srv/app/index.html", "/usr/bin/python3.11", "/lib64/ld.so"
GOOD = {path: f"{number}" * 64 for number, path in enumerate((MAIN, PAGE, PYTHON, LOADER), start=1)}
BAD = "f" * 64

POLICY = AttestationPolicy(
    metadata=Metadata(name="hardened"),
    spec=PolicySpec.model_validate(
        {"mode": "enforce", "files": {"include": ["/srv/app"], "volatile": ["*.log", "/srv/app/cache/**"]}}
    ),
)
REFERENCES = ReferenceValues(
    metadata=Metadata(name="web"),
    spec=ReferenceSpec(
        files={path: FileReference.model_validate({"digests": [GOOD[path]], "mode": "0644"}) for path in (MAIN, PAGE)},
        executables={path: (GOOD[path],) for path in (PYTHON, LOADER)},
    ),
)
REGISTRATION = WorkloadRegistration(
    metadata=Metadata(name="web", labels={"tier": "front"}),
    spec=RegistrationSpec(spiffe_id="spiffe://example.org/web", references="web"),
)


def governing(policy: AttestationPolicy = POLICY, references: ReferenceValues = REFERENCES) -> Governing:
    """What rules the workload."""
    return Governing(REGISTRATION, policy, effective(references))


def entry(path: str, digest: str | None = None, *, mode: int = 0o644, kind: bytes = FILE) -> Entry:
    return Entry(path, kind, mode, 0, 0, 10, digest or GOOD.get(path, BAD))


def process(
    executable: str = PYTHON, digest: str | None = None, *, deleted: bool = False, caps: str = "0"
) -> ProcessKind:
    return ProcessKind(
        executable, digest or GOOD.get(executable, BAD), LOADER, GOOD[LOADER], 0, 0, caps, False, 0, (), deleted
    )


def coverage(
    *, running: bool = True, grade: Grade = Grade.CLOSED_BY_GUARDIAN, further: tuple[Layer, ...] = ()
) -> Coverage:
    """further: layers that are measured besides files and processes."""
    watched = tuple(
        CollectorCoverage(f"{layer}-watch", layer, Mechanism.FANOTIFY, 5.0, running)
        for layer in (Layer.FILES, Layer.PROCESSES, *further)
    )
    absent = tuple(layer for layer in (Layer.SYSCALLS,) if layer not in further)
    return Coverage(watched, absent, Cutting.DESTROY, grade, Isolation(True, True, False, False))


def claimed(
    entries: tuple[Entry, ...] = (entry(MAIN), entry(PAGE)),
    kinds: tuple[ProcessKind, ...] = (process(),),
    *,
    age_ms: int = 10,
    watchers: Coverage | None = None,
    called: CallsMade | None = None,
) -> tuple[Claims, dict[str, bytes]]:
    """Claims with the bodies behind them. called: None where nobody measures calls."""
    files, running = manifest.pack(entries), processes.pack(kinds)
    bodies = {manifest.digest(files): files, processes.digest(running): running}
    layers: tuple[LayerClaim, ...] = (
        LayerClaim(Layer.FILES, manifest.digest(files), Method.FULL, age_ms, age_ms, len(entries)),
        LayerClaim(Layer.PROCESSES, processes.digest(running), Method.FULL, age_ms, age_ms, len(kinds)),
    )
    if called is not None:
        body = calls.pack(called)
        bodies[calls.digest(body)] = body
        layers += (LayerClaim(Layer.SYSCALLS, calls.digest(body), Method.FULL, age_ms, age_ms, len(called.calls)),)
    instance = InstanceId("i-" + "0" * 32)
    return Claims(instance, 1, 0, 1, 0, b"spki", "boot", layers, watchers or coverage()), bodies
