"""Are the files of a workload those of one version of it? What each file may be is judged before, and one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attestation.layers import Layer
from attestation.manifest import Entry
from attestation.signals import Signal
from policies.appraise import allowing
from policies.appraise.layers import as_referenced, in_scope
from policies.appraise.reasons import Finding
from policies.model.classes import FileClass, class_of
from policies.model.places import rule
from policies.model.policy import AttestationPolicy
from policies.model.references import EffectiveReferences, FileReference, Rollout


def check_versions(
    entries: Iterable[Entry], policy: AttestationPolicy, references: EffectiveReferences
) -> list[Finding]:
    """What is found of each document whose versions are mixed. entries: every path that is there."""
    if not references.rollouts:
        return []
    every = {path for rollout in references.rollouts for stated in rollout.versions.values() for path in stated}
    files = policy.spec.files
    judged = {path for path in every if in_scope(path, policy) and class_of(path, files) is FileClass.CODE}
    there = {entry.path: entry for entry in entries if entry.path in judged}
    found = (_mixed(rollout, judged, there, policy, references) for rollout in references.rollouts)
    return [finding for finding in found if finding is not None]


def _mixed(
    rollout: Rollout,
    judged: set[str],
    there: Mapping[str, Entry],
    policy: AttestationPolicy,
    references: EffectiveReferences,
) -> Finding | None:
    """None where one version fits; else the first path that does not belong to the version that fits best."""
    every = sorted({path for stated in rollout.versions.values() for path in stated} & judged)
    unfit = {
        label: [path for path in every if not _fits(there.get(path), stated.get(path, ()))]
        for label, stated in rollout.versions.items()
    }
    nearest = min(unfit, key=lambda label: len(unfit[label]))
    if not unfit[nearest]:
        return None
    path, others = unfit[nearest][0], len(every) - len(unfit[nearest])
    entry = there.get(path)
    of = " or ".join(label for label, paths in unfit.items() if path not in paths) or "no version"
    return Finding(
        Signal.FILE_VERSIONS_MIXED,
        policy.spec.violation_class(Signal.FILE_VERSIONS_MIXED),
        Layer.FILES,
        path,
        f"{others} of {len(every)} files in which versions differ are as in {nearest}",
        f"as in {of}" if entry is not None else f"absent, as in {of}",
        rule(references, "versions"),
        f"Bring all files to {nearest}, or to another version, as a whole.",
        allowing.file(entry, references) if entry is not None else "",
        entry.digest if entry is not None else "",
    )


def _fits(entry: Entry | None, stated: Sequence[FileReference]) -> bool:
    if entry is None:
        return not stated or any(each.optional for each in stated)
    return any(as_referenced(entry, each) for each in stated)
