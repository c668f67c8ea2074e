"""The checks of one thing that a process can execute; sidecar and verifier go through the same ones.

A file may be mapped as code that may be there, or be executed, with this content: `files` and `executables` of the
reference values say so of any path, whether it is measured as a file or not.
"""

from __future__ import annotations

from attestation.digests import Digest
from attestation.layers import Layer
from attestation.memory import Code, CodeKind
from attestation.signals import Signal
from policies.appraise import allowing
from policies.appraise.layers import gravest
from policies.appraise.reasons import Finding
from policies.model.classes import DATA, class_of
from policies.model.memory import amount_text
from policies.model.places import rule
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues

_ANEW = "Start a new instance; if this is meant to be executed, allow it first."


def check_code(code: Code, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    """The gravest of what is found of it."""
    match code.kind:
        case CodeKind.FILE:
            found = [_file(code, policy, references), _writable(code, policy) if code.writable else None]
            return gravest(each for each in found if each is not None)
        case CodeKind.ANONYMOUS | CodeKind.MEMFD:
            return _loose(code, policy)
        case CodeKind.PATCHED:
            where = f"its page at {code.offset:#x} is not"
            return _altered(Signal.MEMORY_CODE_PATCHED, code, policy, where)
        case CodeKind.PROBED:
            where = f"breakpoints are in its page at {code.offset:#x}"
            return _altered(Signal.MEMORY_CODE_PROBED, code, policy, where)
        case CodeKind.UNREAD | CodeKind.UNTOLD:
            found_there = (
                "it cannot be looked into" if code.kind is CodeKind.UNREAD else "there is more than can be told"
            )
            stated, mend = rule(policy, "layers", Layer.MEMORY), "docs/profiles.md says what it takes."
            expected, subject = "the memory of every process is looked into", code.executable or "the workload"
            return _finding(Signal.MEMORY_UNMEASURED, policy, subject, expected, found_there, stated, mend)


def mappable(path: str, references: ReferenceValues) -> tuple[Digest, ...]:
    """What this file may be where it is mapped as code."""
    file = references.spec.files.get(path)
    return (*references.spec.executables.get(path, ()), *(file.digests if file is not None else ()))


def _file(code: Code, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    file_class = class_of(code.path, policy.spec.files)
    known = mappable(code.path, references)
    if file_class in DATA:
        expected, stated = f"nothing may be mapped as code from {file_class}", rule(policy, f"files.{file_class}")
        return _of_file(Signal.MEMORY_CODE_FOREIGN, code, policy, expected, "it is mapped as code", stated, references)
    if code.digest and code.digest in known:
        return None
    stated = rule(references, "files", code.path)
    named = "it is mapped as code without a name" if code.deleted else "it is mapped as code"
    found = f"{named}, with content sha256:{code.digest[:12]}" if code.digest else f"{named}, its content unknown"
    if not known:
        signal = Signal.MEMORY_CODE_DELETED if code.deleted else Signal.MEMORY_CODE_FOREIGN
        return _of_file(signal, code, policy, "no reference value allows it", found, stated, references)
    expected = "only " + " or ".join(f"sha256:{each[:12]}" for each in known[:3]) + " may be"
    signal = Signal.MEMORY_CODE_DELETED if code.deleted else Signal.MEMORY_CODE_MODIFIED
    return _of_file(signal, code, policy, expected, found, stated, references)


def _writable(code: Code, policy: AttestationPolicy) -> Finding | None:
    """A file's code that its process can write into; who may have such memory of no file may have this, too."""
    allowed = policy.spec.memory.allowance(code.executable)
    if allowed is not None and allowed.writable:
        return None
    found = f"{code.path} is mapped writable and executable"
    return _of_process(Signal.MEMORY_CODE_WRITABLE, code, policy, "nothing may be both", found)


def _loose(code: Code, policy: AttestationPolicy) -> Finding | None:
    """Code of no file: allowed as a whole, or told by the gravest word for it."""
    allowed, memfd = policy.spec.memory.allowance(code.executable), code.kind is CodeKind.MEMFD
    if allowed is not None and allowed.covers(code.amount, writable=code.writable, memfd=memfd):
        return None
    amount, of = amount_text(code.amount), "a memfd or shared memory" if memfd else "no file"
    found = f"up to {amount} of code of {of}{', writable' if code.writable else ''}"
    if allowed is None:
        expected = "no policy allows it code that is of no file"
    else:
        kinds = ("writable" if allowed.writable else "not writable", "memfd" if allowed.memfd else "no memfd")
        expected = f"{amount_text(allowed.most)}, {' and '.join(kinds)}, is what it may have"
    return gravest(_of_process(signal, code, policy, expected, found) for signal in _signals(code))


def _signals(code: Code) -> tuple[Signal, ...]:
    """Every word that is true of it."""
    of = Signal.MEMORY_CODE_DELETED if code.kind is CodeKind.MEMFD else Signal.MEMORY_CODE_ANONYMOUS
    return (of, Signal.MEMORY_CODE_WRITABLE) if code.writable else (of,)


def _altered(signal: Signal, code: Code, policy: AttestationPolicy, found: str) -> Finding:
    stated = rule(policy, "layers", Layer.MEMORY)
    expected, subject = "code in memory is what its file holds", code.path
    return _finding(
        signal, policy, subject, expected, f"{found}, in {code.executable}", stated, "Start a new instance."
    )


def _of_process(signal: Signal, code: Code, policy: AttestationPolicy, expected: str, found: str) -> Finding:
    allow = allowing.loose(code, policy)
    return _finding(signal, policy, code.executable, expected, found, rule(policy, "memory.jit"), _ANEW, allow)


def _of_file(
    signal: Signal,
    code: Code,
    policy: AttestationPolicy,
    expected: str,
    found: str,
    stated: str,
    references: ReferenceValues,
) -> Finding:
    allow = allowing.mapped(code, policy, references)
    return _finding(signal, policy, code.path, expected, found, stated, _ANEW, allow, code.digest)


def _finding(
    signal: Signal,
    policy: AttestationPolicy,
    subject: str,
    expected: str,
    found: str,
    stated: str,
    mend: str,
    allow: str = "",
    digest: Digest = "",
) -> Finding:
    finding_class = policy.spec.violation_class(signal)
    return Finding(signal, finding_class, Layer.MEMORY, subject, expected, found, stated, mend, allow, digest)
