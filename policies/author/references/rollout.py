"""Several versions in one document for a roll-out, and back to one: what all share stands once, the rest by version.

Also what is left of a document when what its base states is taken out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from attestation.errors import InvalidInput
from policies.model.references import (
    EffectiveReferences,
    FileReference,
    ReferenceSpec,
    ReferenceValues,
    ReferenceVersion,
)

Value = TypeVar("Value")
LABEL = "version"
"""The label in a document's metadata that says of which version it is."""


def merged(documents: Sequence[tuple[str, ReferenceValues]]) -> ReferenceValues:
    """One document for all of them, named as the first. Each comes with the label of its version, if it has but one.

    Raises InvalidInput where a version is told twice, or where the documents are not of one workload.
    """
    first = documents[0][1]
    versions: dict[str, ReferenceVersion] = {}
    for label, document in documents:
        if _named(document) != _named(first):
            raise InvalidInput(
                f"{document.metadata.qualified!r} and {first.metadata.qualified!r} are not versions of one document",
                where=label,
                mend="Give them one name, and let them inherit the same and take out the same.",
            )
        for name, version in _versions(label, document).items():
            if name in versions:
                raise InvalidInput(f"the version {name!r} is told twice", where=label, mend="Give one another label.")
            versions[name] = version
    return _with(first, versions, [document for _, document in documents])


def _named(document: ReferenceValues) -> tuple[object, ...]:
    return document.metadata.qualified, set(document.spec.inherits), set(document.spec.without)


def without(document: ReferenceValues, labels: Sequence[str]) -> ReferenceValues:
    """The document when these versions are gone; of one version that is left, its files as a document's own.

    Raises InvalidInput for a version that it does not have, and where none would be left.
    """
    unknown = next((label for label in labels if label not in document.spec.versions), None)
    if unknown is not None:
        raise InvalidInput(
            f"it has no version {unknown!r}",
            where=document.metadata.qualified,
            mend=f"It has: {', '.join(document.spec.versions) or 'no versions'}.",
        )
    every = _versions("", document)
    left = {label: version for label, version in every.items() if label not in labels}
    if not left:
        raise InvalidInput("no version would be left", where=document.metadata.qualified, mend="Keep one.")
    return _with(document, left, [document])


def beyond(document: ReferenceValues, base: EffectiveReferences, parent: str) -> ReferenceValues:
    """The document as one that inherits the base: what differs from it, and what it has no more.

    parent: the base's name, as it is inherited by.
    """
    spec = document.spec
    own = ReferenceSpec(
        inherits=(parent,),
        without=tuple(sorted(base.spec.files.keys() - spec.files.keys())),
        expires=spec.expires,
        files=_beyond(spec.files, base.spec.files),
        executables=_beyond(spec.executables, base.spec.executables),
        proxies=_beyond(spec.proxies, base.spec.proxies),
        syscalls=_beyond(spec.syscalls, base.spec.syscalls),
    )
    return document.model_copy(update={"spec": own})


def _beyond(own: Mapping[str, Value], base: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in own.items() if base.get(key) != value}


def _versions(label: str, document: ReferenceValues) -> dict[str, ReferenceVersion]:
    """Every version of a document with all that is good in it; one without versions is one itself."""
    spec = document.spec
    if not spec.versions:
        return {label: ReferenceVersion(files=spec.files, executables=spec.executables)}
    return {
        name: ReferenceVersion(
            files={**spec.files, **{path: _both(spec.files.get(path), each) for path, each in version.files.items()}},
            executables={**spec.executables, **_united(spec.executables, version.executables)},
        )
        for name, version in spec.versions.items()
    }


def _both(common: FileReference | None, own: FileReference) -> FileReference:
    if common is None:
        return own
    return own.model_copy(update={"digests": tuple(dict.fromkeys((*own.digests, *common.digests)))})


def _united(common: Mapping[str, tuple[str, ...]], own: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {path: tuple(dict.fromkeys((*digests, *common.get(path, ())))) for path, digests in own.items()}


def _with(
    first: ReferenceValues, versions: Mapping[str, ReferenceVersion], documents: Sequence[ReferenceValues]
) -> ReferenceValues:
    """The first document with these versions, and the proxies of all."""
    shared = _shared([each.files for each in versions.values()])
    common = _shared([each.executables for each in versions.values()])
    apart = {
        label: ReferenceVersion(files=_beyond(each.files, shared), executables=_beyond(each.executables, common))
        for label, each in versions.items()
    }
    proxies: dict[str, tuple[str, ...]] = {}
    for document in documents:
        for version, digests in document.spec.proxies.items():
            proxies[version] = tuple(dict.fromkeys((*proxies.get(version, ()), *digests)))
    ends = [document.spec.expires for document in documents if document.spec.expires is not None]
    label = {LABEL: next(iter(versions))} if len(versions) == 1 and next(iter(versions)) else {}
    others = {key: value for key, value in first.metadata.labels.items() if key != LABEL}
    spec = first.spec.model_copy(
        update={
            "files": shared,
            "executables": common,
            "proxies": proxies,
            "versions": apart if len(apart) > 1 else {},
            "expires": min(ends, default=None),
        }
    )
    return first.model_copy(
        update={"metadata": first.metadata.model_copy(update={"labels": others | label}), "spec": spec}
    )


def _shared(every: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """What is in all of them, and the same."""
    first, *others = every
    return {key: value for key, value in first.items() if all(each.get(key) == value for each in others)}
