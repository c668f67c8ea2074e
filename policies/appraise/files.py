"""The files layer of an appraisal: every path that is there, what is missing, and whether it is so together."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import cached_property

from attestation import manifest
from attestation.manifest import CAPABILITIES, DIRECTORY, Changes, Tally
from policies.appraise.layers import check_file, missing_file, projected
from policies.appraise.projected import Volumes
from policies.appraise.reasons import Finding
from policies.appraise.versions import check_versions
from policies.model.policy import AttestationPolicy
from policies.model.references import EffectiveReferences

_NO_FILE = (DIRECTORY, CAPABILITIES)


class Files:
    """A packed manifest.

    clean: one in which nothing was found under the policy and references that this one is held against. What is as it
    was there is right without being looked at again: no outcome depends on it, only how long that takes.
    """

    def __init__(self, body: bytes, clean: Files | None = None) -> None:
        self.body, self._clean = body, clean

    @cached_property
    def changes(self) -> Changes | None:
        """Since the clean one; None without one. Raises MalformedEvidence, as `manifest.unpack` does."""
        return manifest.changes(self._clean.body, self.body) if self._clean is not None else None

    @cached_property
    def tally(self) -> Tally:
        """How many entries there are of which kind and mode. For a manifest that parses."""
        if self._clean is None or self.changes is None:
            return manifest.tally(self.body)
        return manifest.tally_after(self._clean.tally, self.changes)


def check_files(files: Files, policy: AttestationPolicy, references: EffectiveReferences) -> list[Finding]:
    """What is found. Raises MalformedEvidence for a manifest that does not parse."""
    judged_together = policy.spec.files.projected or references.rollouts
    if files.changes is not None and not judged_together:
        return _changed(files.changes, policy, references)
    return _every(files.body, policy, references) or check_versions(manifest.unpack(files.body), policy, references)


def _every(body: bytes, policy: AttestationPolicy, references: EffectiveReferences) -> list[Finding]:
    findings, seen = [], set()
    volumes = Volumes() if policy.spec.files.projected else None
    for entry in manifest.unpack(body):
        if entry.kind not in _NO_FILE:  # a folder in the place of a file is no file
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


def _changed(changes: Changes, policy: AttestationPolicy, references: EffectiveReferences) -> list[Finding]:
    """A path that is missing here and was missing there already may be missing."""
    findings = [finding for entry in changes.there if (finding := check_file(entry, policy, references))]
    files = {entry.path for entry in changes.there if entry.kind not in _NO_FILE}
    absent = {entry.path for entry in changes.was} - files
    return findings + _missing(references.spec.files.keys() & absent, policy, references)


def _missing(paths: AbstractSet[str], policy: AttestationPolicy, references: EffectiveReferences) -> list[Finding]:
    return [finding for path in sorted(paths) if (finding := missing_file(path, policy, references))]
