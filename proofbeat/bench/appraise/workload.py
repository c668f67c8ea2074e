"""A workload of ten thousand files under twenty rules: as our appraisal takes it, and as JSON for the peer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from attestation import manifest, processes
from attestation.claims import Claims, LayerClaim
from attestation.coverage import CollectorCoverage, Coverage, Cutting, Grade, Isolation, Mechanism
from attestation.digests import Digest
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.manifest import DIRECTORY, FILE, LINK, NO_DIGEST, Entry
from attestation.processes import ProcessKind
from attestation.spiffe import SpiffeId
from authority.rules import Ruling
from policies.appraise.summary import summarise
from policies.model.governing import Governing
from policies.model.inheritance import effective
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import FileReference, ReferenceSpec, ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration

FILES, FOLDERS = 10_000, 200
_ROOT = "/srv/app/lib"
_PYTHON, _LOADER = "/usr/bin/python3.11", "/lib64/ld-linux-x86-64.so.2"
RULES = {
    "noRoot": "processes.root == 0",
    "noPrivileged": "processes.privileged == 0",
    "noSetuid": "files.setuid == 0",
    "noWorldWritable": "files.worldWritable == 0",
    "noDevices": "files.others == 0",
    "fewFiles": "files.count <= 20000",
    "someFiles": "files.count >= 1",
    "youngFiles": "files.age <= duration('60s')",
    "readInFull": "files.fullAge <= duration('1h')",
    "youngProcesses": "processes.age <= duration('60s')",
    "fewKinds": "size(processes.kinds) <= 16",
    "fixedPrograms": "processes.kinds.all(each, each.executable.startsWith('/usr/'))",
    "namedPrograms": "processes.kinds.all(each, !each.deleted)",
    "sealed": "processes.kinds.all(each, each.noNewPrivileges || each.seccomp == 'filter')",
    "guarded": "coverage.grade == 'closed-by-guardian'",
    "cuts": "coverage.cutting != 'capped'",
    "apart": "'distinct-user' in coverage.isolation",
    "nothingLost": "coverage.collectors.all(each, each.lost == 0)",
    "prompt": "coverage.collectors.all(each, each.latency <= duration('50ms'))",
    "ours": "registration.spiffeId.trustDomain() == 'example.org'",
}
"""In tools/peers/opa/decision.rego under the same names."""
_LAYERS = {"files": {"maxAge": "60s", "fullMaxAge": "1h"}, "processes": {"maxAge": "60s", "fullMaxAge": "1h"}}
_ISOLATION = ["non-dumpable", "distinct-user"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """claims with the bodies behind them, and the entries that the files layer is packed of."""

    claims: Claims
    bodies: Mapping[Digest, bytes]
    entries: tuple[Entry, ...]

    @property
    def body(self) -> bytes:
        return self.bodies[self.claims.layers[0].digest]


def entries() -> tuple[Entry, ...]:
    """As they are referenced."""
    paths = [f"{_ROOT}/module{number % FOLDERS:03}/part{number:05}.py" for number in range(FILES)]
    folders = [f"{_ROOT}/module{number:03}" for number in range(FOLDERS)]
    return (
        *(Entry(path, FILE, 0o644, 0, 0, 4096, hashlib.sha256(path.encode()).hexdigest()) for path in paths),
        *(Entry(path, DIRECTORY, 0o755, 0, 0, 0, NO_DIGEST) for path in folders),
    )


def deviating(there: tuple[Entry, ...], number: int) -> tuple[Entry, ...]:
    """The same, but one file."""
    other = there[number]._replace(digest=hashlib.sha256(b"other %d" % number).hexdigest())
    return (*there[:number], other, *there[number + 1 :])


def claimed(there: Iterable[Entry]) -> Claimed:
    there, kinds = tuple(there), _kinds()
    files, running = manifest.pack(there), processes.pack(kinds)
    bodies = {manifest.digest(files): files, processes.digest(running): running}
    by_layer = zip((Layer.FILES, Layer.PROCESSES), bodies, (len(there), len(kinds)), strict=True)
    layers = tuple(LayerClaim(layer, digest, Method.EVENT, 40, 90_000, items) for layer, digest, items in by_layer)
    watched = tuple(
        CollectorCoverage(str(layer), layer, mechanism, 5.0, True)
        for layer, mechanism in ((Layer.FILES, Mechanism.FANOTIFY), (Layer.PROCESSES, Mechanism.PROC_CONNECTOR))
    )
    coverage = Coverage(watched, (), Cutting.DESTROY, Grade.CLOSED_BY_GUARDIAN, Isolation(True, True, False))
    return Claimed(Claims(InstanceId("i-" + "0" * 32), 1, 0, 1, 0, b"", "", layers, coverage), bodies, there)


def _kinds() -> tuple[ProcessKind, ...]:
    python, loader = (hashlib.sha256(each.encode()).hexdigest() for each in (_PYTHON, _LOADER))
    return tuple(
        ProcessKind(_PYTHON, python, _LOADER, loader, 1000 + number, 1000, "0", True, 2, ()) for number in range(4)
    )


def ruling(there: Iterable[Entry]) -> Ruling:
    """The policy with its rules, and references to all files as they are there."""
    rules = {name: {"that": that, "message": f"{name} must hold"} for name, that in RULES.items()}
    spec = {
        "mode": "enforce",
        "layers": _LAYERS,
        "files": {"include": [_ROOT]},
        "coverage": {"grade": "closed-by-guardian", "cutting": "kill", "isolation": _ISOLATION},
        "rules": rules,
    }
    references = ReferenceSpec(
        files={
            each.path: FileReference.model_validate({"digests": [each.digest], "mode": f"{each.mode:04o}"})
            for each in there
            if each.kind == FILE
        },
        executables={each: (hashlib.sha256(each.encode()).hexdigest(),) for each in (_PYTHON, _LOADER)},
    )
    named = Metadata(name="web")
    identity = SpiffeId("example.org", "/web")
    governing = Governing(
        WorkloadRegistration(metadata=named, spec=RegistrationSpec(spiffe_id=str(identity), references="web")),
        AttestationPolicy(metadata=named, spec=PolicySpec.model_validate(spec)),
        effective(ReferenceValues(metadata=named, spec=references)),
    )
    return Ruling("web", identity, governing, governing.digest, "")


# --- for the peer ---


def data(ruled: Ruling) -> dict[str, Any]:
    """What governs, as the peer's policy looks at it."""
    spec, references = ruled.policy.spec, ruled.references.spec
    return {
        "policy": {
            "include": list(spec.files.include),
            "layers": {
                str(layer): {"maxAge": each.max_age * 1000, "fullMaxAge": each.full_max_age * 1000}
                for layer, each in spec.layers.items()
            },
            "coverage": {
                "grades": [str(spec.coverage.grade)],
                "cuttings": ["destroy", "kill"],
                "isolation": [str(each) for each in spec.coverage.isolation],
            },
            "rules": sorted(spec.rules),
        },
        "references": {
            "files": {
                path: {"accepted": _accepted(each), "digests": dict.fromkeys(each.digests, True), "mode": each.mode}
                for path, each in references.files.items()
            },
            "executables": {path: dict.fromkeys(each, True) for path, each in references.executables.items()},
        },
    }


def _accepted(reference: FileReference) -> list[dict[str, Any]]:
    return [
        {"kind": kind.decode(), "digest": digest, "mode": reference.mode}
        for digest in reference.digests
        for kind in (FILE, LINK)
    ]


def given(one: Claimed, ruled: Ruling) -> dict[str, Any]:
    """What is claimed, with the summary made: the peer need not count."""
    return {
        "files": {
            each.path: {"kind": each.kind.decode(), "digest": each.digest, "mode": each.mode} for each in one.entries
        },
        "layers": {str(each.layer): {"age": each.age_ms, "fullAge": each.full_age_ms} for each in one.claims.layers},
        "summary": _camel(asdict(summarise(one.claims, one.bodies, ruled.governing))),
    }


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {to_camel(key): _camel(each) for key, each in value.items()}
    return [_camel(each) for each in value] if isinstance(value, tuple | list) else value
