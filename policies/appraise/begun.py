"""The checks of how a process was begun: from where, with which rights, scripts, and libraries before its own."""

from __future__ import annotations

from attestation.digests import Digest
from attestation.facts import ExecutionFact, PreloadFact, ScriptFact
from attestation.layers import Layer
from attestation.patterns import matches
from attestation.signals import Signal
from policies.appraise import allowing
from policies.appraise.layers import gravest, in_scope
from policies.appraise.reasons import Finding
from policies.model.classes import DATA, FileClass, class_of
from policies.model.places import rule
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues

FOLDERS = "LD_LIBRARY_PATH"
_MEND = "Start a new instance; if this is meant to run, allow it first."


def check_script(fact: ScriptFact, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    """One file that an interpreter runs: the gravest of what is found of it. It may be referenced as a file, or as an
    executable."""
    if not policy.spec.processes.require_referenced_scripts:
        return None
    found = [_from_data(fact, policy, references), _referenced(fact, policy, references)]
    return gravest(each for each in found if each is not None)


def _from_data(fact: ScriptFact, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    file_class = class_of(fact.path, policy.spec.files)
    if file_class not in DATA:
        return None
    stated, allow = rule(policy, f"files.{file_class}"), allowing.code(fact.path, fact.digest, policy, references)
    expected = f"nothing may be run from {file_class}"
    return _script(Signal.SCRIPT_FROM_DATA, fact, policy, expected, "an interpreter runs it", stated, allow)


def _referenced(fact: ScriptFact, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    path, nameless = fact.path, fact.deleted and policy.spec.processes.forbid_deleted
    digests = _digests(path, references)
    if fact.digest in digests and not nameless:
        return None
    place = ("executables", path) if path in references.spec.executables else ("executables",)
    allow = "" if fact.deleted else allowing.execution(path, fact.digest, references)
    allow = allow or allowing.process_rule("requireReferencedScripts", policy)
    stated = rule(references, *place)
    if not digests or nameless:
        expected = "files without a name may not run" if nameless and digests else "no reference value allows it"
        found = "an interpreter runs it" + (", and no name leads to it any more" if fact.deleted else "")
        return _script(Signal.SCRIPT_FOREIGN, fact, policy, expected, found, stated, allow)
    found = f"run with content sha256:{fact.digest[:12]}" if fact.digest else "run, its content unknown"
    expected = f"only {' or '.join(f'sha256:{digest[:12]}' for digest in digests[:3])} may be"
    return _script(Signal.SCRIPT_MODIFIED, fact, policy, expected, found, stated, allow)


def _digests(path: str, references: ReferenceValues) -> tuple[Digest, ...]:
    file = references.spec.files.get(path)
    return (*references.spec.executables.get(path, ()), *(file.digests if file is not None else ()))


def _script(
    kind: Signal, fact: ScriptFact, policy: AttestationPolicy, expected: str, found: str, stated: str, allow: str
) -> Finding:
    finding_class = policy.spec.violation_class(kind)
    return Finding(kind, finding_class, Layer.PROCESSES, fact.path, expected, found, stated, _MEND, allow, fact.digest)


def check_temporary(fact: ExecutionFact, policy: AttestationPolicy) -> Finding | None:
    """One execution from where nothing lies that was built."""
    if not fact.temporary or fact.deleted or not policy.spec.processes.forbid_temporary:
        return None
    where = f"below {fact.temporary}, which is open to everybody" if fact.temporary.startswith("/") else fact.temporary
    expected = "nothing may be executed from temporary files"
    return _execution(Signal.EXECUTION_FROM_TEMPORARY, fact, policy, expected, f"it lies in {where}", "forbidTemporary")


def check_gaining(fact: ExecutionFact, policy: AttestationPolicy) -> Finding | None:
    """One execution that gives its caller more than it has."""
    if not fact.gains or not policy.spec.processes.forbid_gaining:
        return None
    expected, found = "nothing may give its caller more than it has", f"it gives {fact.gains}"
    return _execution(Signal.EXECUTION_GAINING, fact, policy, expected, found, "forbidGaining")


def _execution(
    kind: Signal, fact: ExecutionFact, policy: AttestationPolicy, expected: str, found: str, field: str
) -> Finding:
    return Finding(
        kind,
        policy.spec.violation_class(kind),
        Layer.PROCESSES,
        fact.path,
        expected,
        found,
        rule(policy, f"processes.{field}"),
        _MEND,
        allowing.process_rule(field, policy),
        fact.digest,
    )


def check_preload(fact: PreloadFact, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    """One library, or one folder of them, that comes before a program's own."""
    named = [each for each in (fact.entry, fact.path) if each]
    if any(matches(each, policy.spec.processes.preload or ()) for each in named):
        return None
    if fact.digest and fact.digest in _digests(fact.path, references):
        return None
    if fact.source == FOLDERS and fact.path and _holds_code(fact.path, policy):
        return None
    kind = Signal.PROCESS_PRELOAD
    return Finding(
        kind,
        policy.spec.violation_class(kind),
        Layer.PROCESSES,
        fact.path or fact.entry or fact.source,
        "no reference value and no policy allows it",
        f"{fact.source} names {fact.entry or 'more than is read'}",
        rule(policy, "processes.preload"),
        "Start a new instance without it; if it is meant to be there, allow it first.",
        allowing.preload(fact.entry, policy) if fact.entry else "",
        fact.digest,
    )


def _holds_code(folder: str, policy: AttestationPolicy) -> bool:
    """Is whatever is in there referenced, or found?"""
    library = f"{folder.rstrip('/')}/lib.so"
    return in_scope(library, policy) and class_of(library, policy.spec.files) in (
        FileClass.CODE,
        FileClass.CONFIGURATION,
    )
