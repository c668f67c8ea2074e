"""The checks of one file and one executable. The sidecar's facts and the verifier's claims go through the same ones."""

from __future__ import annotations

from attestation.digests import Digest
from attestation.layers import Layer
from attestation.manifest import DIRECTORY, FILE, LINK, NO_DIGEST, Entry
from attestation.patterns import matches
from attestation.processes import ProcessKind
from attestation.violation import ViolationClass
from policies.appraise.reasons import Finding
from policies.model.policy import AttestationPolicy
from policies.model.references import FileReference, ReferenceValues

MOST_FINDINGS = 32
"""Reasons kept for one layer: enough to act on, bounded however much is wrong."""


def volatile(path: str, policy: AttestationPolicy) -> bool:
    """Is this path one whose content nobody judges?"""
    return matches(path, policy.spec.files.volatile)


def in_scope(path: str, policy: AttestationPolicy) -> bool:
    """Does policy ask for this path to be measured?"""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in policy.spec.files.include)


def check_file(entry: Entry, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    """One path that exists. Folders are judged by what is in them; an unreferenced file is a finding."""
    if entry.kind == DIRECTORY or volatile(entry.path, policy) or not in_scope(entry.path, policy):
        return None
    reference = references.spec.files.get(entry.path)
    if reference is None:
        return _file("file-unreferenced", entry.path, "no reference value allows it", "a file is there", policy)
    if entry.kind not in (FILE, LINK) or entry.digest == NO_DIGEST:
        return _file("file-unreadable", entry.path, "its content is referenced", "it cannot be read as a file", policy)
    if entry.digest not in reference.digests:
        found = f"content sha256:{entry.digest[:12]}"
        return _file("file-modified", entry.path, f"only {_short(reference.digests)} may be", found, policy)
    return _attributes(entry, reference, policy)


def _attributes(entry: Entry, reference: FileReference, policy: AttestationPolicy) -> Finding | None:
    for name, expected, found in (
        ("mode", reference.mode, entry.mode),
        ("owner", reference.uid, entry.uid),
        ("group", reference.gid, entry.gid),
    ):
        if expected is not None and expected != found:
            shown = (f"{found:04o}", f"{expected:04o}") if name == "mode" else (str(found), str(expected))
            return _file(
                "file-attributes", entry.path, f"{name} {shown[1]} is referenced", f"{name} {shown[0]}", policy
            )
    return None


def missing_file(path: str, policy: AttestationPolicy) -> Finding | None:
    """One referenced path that is not there."""
    if volatile(path, policy) or not in_scope(path, policy):
        return None
    return _file("file-missing", path, "a reference value asks for it", "no file is there", policy)


def _file(kind: str, path: str, expected: str, found: str, policy: AttestationPolicy) -> Finding:
    rule = f"{policy.metadata.name}: files"
    mend = "Put the referenced content back, or add what is there to the reference values."
    return Finding(kind, ViolationClass.DRIFT, Layer.FILES, path, expected, found, rule, mend)


def check_executable(
    path: str, digest: Digest, deleted: bool, policy: AttestationPolicy, references: ReferenceValues
) -> Finding | None:
    """One executable that runs or ran, or a loader."""
    if deleted and policy.spec.processes.forbid_deleted:
        return _execution("execution-deleted", path, "files without a name may not run", "it has no name", policy)
    allowed = references.spec.executables.get(path)
    if allowed is None:
        return _execution("execution-foreign", path, "no reference value allows it", "it was executed", policy)
    if digest not in allowed:
        found = f"executed with content sha256:{digest[:12]}" if digest else "executed, its content unknown"
        return _execution("execution-modified", path, f"only {_short(allowed)} may be", found, policy)
    return None


def check_process(kind: ProcessKind, policy: AttestationPolicy, references: ReferenceValues) -> list[Finding]:
    """One kind of running process: its executable, its loader, and what it may do."""
    rules = policy.spec.processes
    findings = [check_executable(kind.executable, kind.digest, kind.deleted, policy, references)]
    if kind.loader:
        findings.append(check_executable(kind.loader, kind.loader_digest, False, policy, references))
    if rules.most_capabilities is not None and exceeds(kind.capabilities, rules.most_capabilities):
        findings.append(
            _execution(
                "capabilities-exceeded",
                kind.executable,
                f"{rules.most_capabilities} is the most",
                f"capabilities {kind.capabilities}",
                policy,
            )
        )
    if rules.require_no_new_privileges and not kind.no_new_privileges:
        findings.append(
            _execution("privileges-open", kind.executable, "no_new_privs is required", "it can gain privileges", policy)
        )
    return [finding for finding in findings if finding is not None]


def exceeds(capabilities: str, most: str) -> bool:
    """Has the first set (hex, as CapEff) a capability that the second lacks?"""
    return bool(int(capabilities, 16) & ~int(most, 16))


def _execution(kind: str, path: str, expected: str, found: str, policy: AttestationPolicy) -> Finding:
    rule = f"{policy.metadata.name}: processes"
    mend = "Start a new instance; if this is meant to run, add it to the reference values first."
    return Finding(kind, ViolationClass.TAMPER, Layer.PROCESSES, path, expected, found, rule, mend)


def _short(digests: tuple[Digest, ...]) -> str:
    return " or ".join(f"sha256:{digest[:12]}" for digest in digests[:3])
