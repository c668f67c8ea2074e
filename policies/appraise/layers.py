"""The checks of one file and one executable. The sidecar's facts and the verifier's claims go through the same ones."""

from __future__ import annotations

from collections.abc import Iterable

from attestation.digests import Digest
from attestation.layers import Layer
from attestation.manifest import CAPABILITIES, DIRECTORY, FILE, LINK, NO_DIGEST, Entry
from attestation.processes import ProcessKind
from attestation.signals import Signal
from attestation.violation import ViolationClass
from policies.appraise import allowing
from policies.appraise.projected import hidden, leads_to_now
from policies.appraise.reasons import Finding
from policies.model.classes import DATA, UNREAD, FileClass, class_of
from policies.model.places import rule
from policies.model.policy import AttestationPolicy
from policies.model.references import FileReference, ReferenceValues

MOST_FINDINGS = 32
"""Reasons kept for one layer: enough to act on, bounded however much is wrong."""


def judged(path: str, policy: AttestationPolicy) -> bool:
    """Is what is there at this path held against reference values?"""
    return in_scope(path, policy) and class_of(path, policy.spec.files) not in UNREAD


def projected(path: str, policy: AttestationPolicy) -> bool:
    """Is this path judged by what its volume leads to, which a path alone does not tell?"""
    return in_scope(path, policy) and class_of(path, policy.spec.files) is FileClass.PROJECTED


def in_scope(path: str, policy: AttestationPolicy) -> bool:
    """Does policy ask for this path to be measured?"""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in policy.spec.files.include)


def as_referenced(entry: Entry, reference: FileReference) -> bool:
    """Content and all attributes that matter."""
    return (
        entry.digest in reference.digests
        and entry.kind in (FILE, LINK)
        and reference.mode in (None, entry.mode)
        and reference.uid in (None, entry.uid)
        and reference.gid in (None, entry.gid)
    )


def check_file(
    entry: Entry, policy: AttestationPolicy, references: ReferenceValues, capabilities: str = ""
) -> Finding | None:
    """One path that exists. Folders are judged by what is in them; an unreferenced file is a finding.

    capabilities: those of the file, as far as they are known here: what would have to be referenced as well.

    In projected volumes nothing is a finding that is not referenced, and what a stable name leads to is for `appraise`
    to say, which sees the whole volume.
    """
    if entry.kind == CAPABILITIES:
        return _capabilities(entry, policy, references)
    reference = references.spec.files.get(entry.path)
    # First what nearly every path is: its class is asked for only where it matters.
    if entry.kind == DIRECTORY or (reference is not None and as_referenced(entry, reference)):
        return None
    if not judged(entry.path, policy):
        return None
    if projected(entry.path, policy) and (reference is None or hidden(entry.path) or leads_to_now(entry)):
        return None
    stated, allow = rule(references, "files", entry.path), allowing.file(entry, references, capabilities)
    if reference is None:
        measured, expected, found = rule(policy, "files.include"), "no reference value allows it", "a file is there"
        return _file(Signal.FILE_UNREFERENCED, policy, entry.path, expected, found, measured, allow, entry.digest)
    if entry.kind not in (FILE, LINK) or entry.digest == NO_DIGEST:
        expected, found = "its content is referenced", "it cannot be read as a file"
        return _file(Signal.FILE_UNREADABLE, policy, entry.path, expected, found, stated, allow)
    # The gravest, not the first: else a changed content, which a policy calls drift, would hide a tamper.
    attributes = _attributes(entry, reference, policy, references, capabilities)
    if entry.digest in reference.digests:
        return attributes
    expected, found = f"only {_short(reference.digests)} may be", f"content sha256:{entry.digest[:12]}"
    content = _file(Signal.FILE_MODIFIED, policy, entry.path, expected, found, stated, allow, entry.digest)
    return gravest(each for each in (content, attributes) if each is not None)


def _attributes(
    entry: Entry,
    reference: FileReference,
    policy: AttestationPolicy,
    references: ReferenceValues,
    capabilities: str,
) -> Finding | None:
    for name, expected, found in (
        ("mode", reference.mode, entry.mode),
        ("owner", reference.uid, entry.uid),
        ("group", reference.gid, entry.gid),
    ):
        if expected is not None and expected != found:
            shown = (f"{found:04o}", f"{expected:04o}") if name == "mode" else (str(found), str(expected))
            expectation = f"{name} {shown[1]} is referenced"
            stated, allow = rule(references, "files", entry.path), allowing.file(entry, references, capabilities)
            return _file(Signal.FILE_ATTRIBUTES, policy, entry.path, expectation, f"{name} {shown[0]}", stated, allow)
    return None


def _capabilities(entry: Entry, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    """Those of a file that is referenced itself; of another one the file is the finding."""
    reference = references.spec.files.get(entry.owner)
    if reference is None or entry.capabilities == reference.capabilities or not judged(entry.owner, policy):
        return None
    if projected(entry.owner, policy):
        return None
    expected = f"capabilities {reference.capabilities or 'none'} are referenced"
    stated, allow = rule(references, "files", entry.owner), allowing.file_capabilities(entry, references)
    found = f"capabilities {entry.capabilities}"
    return _file(Signal.FILE_ATTRIBUTES, policy, entry.owner, expected, found, stated, allow)


def missing_file(path: str, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    """One referenced path that is not there."""
    if references.spec.files[path].optional or not judged(path, policy):
        return None
    if hidden(path) and projected(path, policy):
        return None
    stated, allow = rule(references, "files", path), allowing.absence(path, policy)
    return _file(Signal.FILE_MISSING, policy, path, "a reference value asks for it", "no file is there", stated, allow)


def check_written(path: str, policy: AttestationPolicy) -> Finding | None:
    """One path that is written to, or that a file is put at, whatever it holds afterwards."""
    files = policy.spec.files
    if not files.immutable or not in_scope(path, policy) or class_of(path, files) is not FileClass.CODE:
        return None
    expected, stated = "code is immutable", rule(policy, "files.immutable")
    return _file(Signal.FILE_WRITTEN, policy, path, expected, "it is written to", stated, allowing.writing(policy))


_RESTORE = {
    Signal.FILE_UNREFERENCED: "Remove the file.",
    Signal.FILE_UNREADABLE: "Put the referenced file back, readable.",
    Signal.FILE_MODIFIED: "Put the referenced content back.",
    Signal.FILE_ATTRIBUTES: "Give the file its referenced mode, owner and capabilities again.",
    Signal.FILE_MISSING: "Put the file back.",
    Signal.FILE_WRITTEN: "Put new versions of code into a new instance.",
}


def _file(
    kind: Signal,
    policy: AttestationPolicy,
    path: str,
    expected: str,
    found: str,
    stated: str,
    allow: str,
    digest: Digest = "",
) -> Finding:
    configuration = class_of(path, policy.spec.files) is FileClass.CONFIGURATION
    finding_class = ViolationClass.DRIFT if configuration else policy.spec.violation_class(kind)
    return Finding(kind, finding_class, Layer.FILES, path, expected, found, stated, _RESTORE[kind], allow, digest)


def check_executable(
    path: str, digest: Digest, deleted: bool, policy: AttestationPolicy, references: ReferenceValues
) -> Finding | None:
    """One executable that runs or ran, or a loader: the gravest of what is found of it.

    Not the first: else what a policy calls drift, as that a program has no name any more, would hide a tamper.
    """
    found = [
        _nameless(path, digest, policy, references) if deleted else None,
        _from_data(path, digest, policy, references),
        _referenced(path, digest, policy, references),
    ]
    return gravest(each for each in found if each is not None)


def gravest(findings: Iterable[Finding]) -> Finding | None:
    """The first of those whose class is the graver; None where nothing was found."""
    return min(findings, key=lambda each: each.finding_class is not ViolationClass.TAMPER, default=None)


def _nameless(path: str, digest: Digest, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    if not policy.spec.processes.forbid_deleted:
        return None
    stated, allow = rule(policy, "processes.forbidDeleted"), allowing.deleted(path, digest, policy, references)
    expected = "files without a name may not run"
    return _execution(Signal.EXECUTION_DELETED, policy, path, expected, "it has no name", stated, allow, digest)


def _from_data(path: str, digest: Digest, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    file_class = class_of(path, policy.spec.files)
    if file_class not in DATA:
        return None
    stated, allow = rule(policy, f"files.{file_class}"), allowing.code(path, digest, policy, references)
    expected = f"nothing may be executed from {file_class}"
    return _execution(Signal.EXECUTION_FROM_DATA, policy, path, expected, "it was executed", stated, allow, digest)


def _referenced(path: str, digest: Digest, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    allowed = references.spec.executables.get(path)
    if allowed is None:
        stated, allow = rule(references, "executables"), allowing.execution(path, digest, references)
        expected = "no reference value allows it"
        return _execution(Signal.EXECUTION_FOREIGN, policy, path, expected, "it was executed", stated, allow, digest)
    if digest not in allowed:
        found = f"executed with content sha256:{digest[:12]}" if digest else "executed, its content unknown"
        stated, allow = rule(references, "executables", path), allowing.execution(path, digest, references)
        expected = f"only {_short(allowed)} may be"
        return _execution(Signal.EXECUTION_MODIFIED, policy, path, expected, found, stated, allow, digest)
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
                Signal.CAPABILITIES_EXCEEDED,
                policy,
                kind.executable,
                f"{rules.most_capabilities} is the most",
                f"capabilities {kind.capabilities}",
                rule(policy, "processes.mostCapabilities"),
                allowing.capabilities(kind.capabilities, policy),
            )
        )
    if rules.require_no_new_privileges and not kind.no_new_privileges:
        findings.append(
            _execution(
                Signal.PRIVILEGES_OPEN,
                policy,
                kind.executable,
                "no_new_privs is required",
                "it can gain privileges",
                rule(policy, "processes.requireNoNewPrivileges"),
                allowing.privileges(policy),
            )
        )
    return [finding for finding in findings if finding is not None]


def check_call(name: str, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    """One call that was made. Which calls are looked at at all, policy says: of `lean` those that have a trace."""
    if name in references.spec.calls:
        return None
    return Finding(
        Signal.CALL_FOREIGN,
        policy.spec.violation_class(Signal.CALL_FOREIGN),
        Layer.SYSCALLS,
        name,
        "no reference value allows it",
        "the call was made",
        rule(references, "syscalls"),
        "Start a new instance; if this is meant to be called, allow it first.",
        allowing.call(name, references),
    )


def check_capability(name: str, policy: AttestationPolicy) -> Finding | None:
    """One capability that was used."""
    allowed = policy.spec.syscalls.capabilities
    if allowed is None or name in allowed:
        return None
    return Finding(
        Signal.CAPABILITY_USED,
        policy.spec.violation_class(Signal.CAPABILITY_USED),
        Layer.SYSCALLS,
        name,
        "policy does not list it",
        "it was used",
        rule(policy, "syscalls.capabilities"),
        "Start a new instance; if this is meant to be used, allow it first.",
        allowing.capability(name, policy),
    )


def exceeds(capabilities: str, most: str) -> bool:
    """Has the first set (hex, as CapEff) a capability that the second lacks?"""
    return bool(int(capabilities, 16) & ~int(most, 16))


def _execution(
    kind: Signal,
    policy: AttestationPolicy,
    path: str,
    expected: str,
    found: str,
    stated: str,
    allow: str,
    digest: Digest = "",
) -> Finding:
    finding_class = policy.spec.violation_class(kind)
    mend = "Start a new instance; if this is meant to run, allow it first."
    return Finding(kind, finding_class, Layer.PROCESSES, path, expected, found, stated, mend, allow, digest)


def _short(digests: tuple[Digest, ...]) -> str:
    return " or ".join(f"sha256:{digest[:12]}" for digest in digests[:3])
