"""The files layer of an appraisal: every path that is there, what is missing, and whether it is so together."""

from __future__ import annotations

from attestation import manifest
from attestation.manifest import DIRECTORY
from policies.appraise.layers import check_file, missing_file, projected
from policies.appraise.projected import Volumes
from policies.appraise.reasons import Finding
from policies.appraise.versions import check_versions
from policies.model.policy import AttestationPolicy
from policies.model.references import EffectiveReferences


def check_files(
    body: bytes, policy: AttestationPolicy, references: EffectiveReferences, clean: bytes | None = None
) -> list[Finding]:
    """What is found in a packed manifest. Raises MalformedEvidence for one that does not parse.

    clean: a manifest in which nothing was found under this policy and these references. What is as it was there is
    found to be right again without being looked at; the outcome is the same.
    """
    judged_together = policy.spec.files.projected or references.rollouts
    if clean is not None and not judged_together:
        return _changed(clean, body, policy, references)
    return _every(body, policy, references) or check_versions(manifest.unpack(body), policy, references)


def _every(body: bytes, policy: AttestationPolicy, references: EffectiveReferences) -> list[Finding]:
    findings, seen = [], set()
    volumes = Volumes() if policy.spec.files.projected else None
    for entry in manifest.unpack(body):
        if entry.kind != DIRECTORY:  # a folder in the place of a file is no file
            seen.add(entry.path)
        if volumes is not None:
            volumes.add(entry)
        if finding := check_file(entry, policy, references):
            findings.append(finding)
    through = volumes.seen_through(references.spec.files) if volumes is not None else ()
    now = {path: entry for path, entry in through if projected(path, policy)}
    findings += [finding for entry in now.values() if entry and (finding := check_file(entry, policy, references))]
    dangling = {path for path, entry in now.items() if entry is None}
    absent = (references.spec.files.keys() - seen - now.keys()) | dangling
    return findings + _missing(absent, policy, references)


def _changed(clean: bytes, body: bytes, policy: AttestationPolicy, references: EffectiveReferences) -> list[Finding]:
    """A path that is missing here and was missing there already may be missing."""
    changes = manifest.changes(clean, body)
    findings = [finding for entry in changes.there if (finding := check_file(entry, policy, references))]
    folders = {entry.path for entry in changes.there if entry.kind == DIRECTORY}
    return findings + _missing(references.spec.files.keys() & {*changes.gone, *folders}, policy, references)


def _missing(paths: set[str], policy: AttestationPolicy, references: EffectiveReferences) -> list[Finding]:
    return [finding for path in sorted(paths) if (finding := missing_file(path, policy, references))]
