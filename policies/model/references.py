"""ReferenceValues: what a workload's files and executables may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from attestation import calls
from attestation.digests import well_formed
from attestation.errors import InvalidInput
from attestation.quantities import instant, instant_text
from policies.model.dialect import Strict
from policies.model.metadata import NAME, Document, Metadata


def _digest(value: object) -> object:
    text = value.removeprefix("sha256:") if isinstance(value, str) else ""
    if not well_formed(text):
        raise ValueError("a digest is 64 lower-case hexadecimal digits, as sha256sum prints them")
    return text


ReferenceDigest = Annotated[
    str,
    BeforeValidator(_digest),
    WithJsonSchema({"type": "string", "title": "digest", "pattern": "^(sha256:)?[0-9a-f]{64}$"}),
]


def _mode(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-7]{3,5}", value):
        return int(value, 8)
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError('a mode is written in octal and quoted: "0644"')
    return value


FileMode = Annotated[
    int,
    BeforeValidator(_mode),
    PlainSerializer(lambda mode: f"{mode:04o}"),
    WithJsonSchema({"type": "string", "title": "mode", "pattern": "^[0-7]{3,5}$"}),
]
"""Permission bits with setuid, setgid and sticky; written as `"0644"`."""


def _instant(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a point in time is text: 2026-12-31T00:00:00Z")
    try:
        return instant(value)
    except InvalidInput as error:
        raise ValueError(error.sentence) from error


Instant = Annotated[
    int,
    BeforeValidator(_instant),
    PlainSerializer(instant_text),
    WithJsonSchema({"type": "string", "title": "time", "format": "date-time"}),
]
"""Unix seconds; written as `2026-12-31T00:00:00Z`."""

_PARENT = NAME.removesuffix("$") + "(/" + NAME.removeprefix("^").removesuffix("$") + ")?$"
Parent = Annotated[str, Field(pattern=_PARENT)]
"""A ReferenceValues: `debian-12` of the same namespace, `proofbeat-system/debian-12` of the root namespace."""

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")]


Owner = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""The number of a user or a group, as Linux has them."""


FileCapabilities = Annotated[str, Field(pattern=r"^([0-9a-f]{2}){0,32}$")]
"""The extended attribute `security.capability` in hexadecimal digits."""


def _call(value: object) -> object:
    if not isinstance(value, str) or not calls.well_formed(value):
        raise ValueError(
            "a system call goes by its name (`openat`), an operation of io_uring by `io_uring:` and its own, any call "
            f"by an older interface by `{calls.X32}` or `{calls.COMPAT}`, one without a name by `{calls.OTHER}`"
        )
    return value


CallName = Annotated[str, BeforeValidator(_call), WithJsonSchema({"type": "string", "title": "call"})]


class FileReference(Strict):
    """digests: any of them will do. mode: permission bits, where they matter; None leaves them unjudged.

    uid, gid: its owner, likewise. optional: the file may also be absent. capabilities: what an execution of it may
    gain, as `getfattr -e hex -n security.capability` prints it without `0x`; nothing where they are not stated.
    """

    digests: tuple[ReferenceDigest, ...] = Field(min_length=1)
    mode: FileMode | None = None
    uid: Owner | None = None
    gid: Owner | None = None
    optional: bool = Field(default=False, exclude_if=lambda optional: not optional)
    capabilities: FileCapabilities = Field(default="", exclude_if=lambda capabilities: not capabilities)


class ReferenceVersion(Strict):
    """What is of one version of the software only. files, executables: as in the spec, for what versions differ in."""

    files: dict[str, FileReference] = Field(default_factory=dict)
    executables: dict[str, tuple[ReferenceDigest, ...]] = Field(default_factory=dict)


class ReferenceSpec(Strict):
    """What files and programs may be. files: path -> what it may be. executables: path -> digests that may run, loaders
    included.

    proxies: Envoy's version -> digests of its builds that may hold the key. What Envoy says of its version itself is
    believed by nobody; the digest tells it. Not written where it is empty, as PolicySpec.proxy.

    syscalls: system calls that may be made, in sets of any name: what is in one of them may be. Which set a call came
    from then says why it is there.

    inherits: what these add to, or replace: whatever is stated here takes the place of what is inherited under the
    same path or version, as a whole. without: inherited paths of files that are not here. expires: from then on these
    affirm nothing, nor does anything that inherits them.

    versions: during a roll-out, what the versions differ in: label -> what is of that version. An instance is one of
    them as a whole: all its files, and those of no version, are of one and the same. What `files` states as well is
    good in every version. A path that a version does not state is there as it is inherited, else absent.
    """

    inherits: tuple[Parent, ...] = Field(default=(), exclude_if=lambda parents: not parents)
    without: tuple[str, ...] = Field(default=(), exclude_if=lambda paths: not paths)
    expires: Instant | None = Field(default=None, exclude_if=lambda at: at is None)
    files: dict[str, FileReference] = Field(default_factory=dict)
    executables: dict[str, tuple[ReferenceDigest, ...]] = Field(default_factory=dict)
    proxies: dict[str, tuple[ReferenceDigest, ...]] = Field(default_factory=dict, exclude_if=lambda known: not known)
    syscalls: dict[Label, tuple[CallName, ...]] = Field(default_factory=dict, exclude_if=lambda known: not known)
    versions: dict[Label, ReferenceVersion] = Field(default_factory=dict, exclude_if=lambda versions: not versions)

    @property
    def calls(self) -> frozenset[str]:
        """Those of all sets."""
        return frozenset(name for each in self.syscalls.values() for name in each)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.without and not self.inherits:
            raise ValueError("without takes out what is inherited, and nothing is inherited here")
        stated = self.files.keys() | {path for each in self.versions.values() for path in each.files}
        both = next((path for path in self.without if path in stated), None)
        if both is not None:
            raise ValueError(f"without takes out {both}, which is stated here as well")
        return self


class ReferenceValues(Document):
    """As it is written. With what it inherits it is EffectiveReferences."""

    kind: Literal["ReferenceValues"] = "ReferenceValues"
    spec: ReferenceSpec = ReferenceSpec()


class Inherited(Strict):
    """What an ancestor states and nothing nearer does. places: `files[/usr/bin/python3]`, `expires`."""

    metadata: Metadata
    places: tuple[str, ...]


class Rollout(Strict):
    """One document's versions: label -> path -> any of what it may be there; absent is what is not named.

    Paths are those that any version states for itself.
    """

    metadata: Metadata
    versions: dict[str, dict[str, tuple[FileReference, ...]]]


class EffectiveReferences(ReferenceValues, title=ReferenceValues.__name__):
    """A document with all that it inherits, and of all versions what any of them may be.

    In its spec nothing is inherited and no version stands apart: policies/model/inheritance.py puts it together.
    rollouts: what must go together.
    """

    model_config = ConfigDict(title="ReferenceValues")  # what faults in it are faults of

    inherited: tuple[Inherited, ...] = Field(default=(), exclude_if=lambda inherited: not inherited)
    rollouts: tuple[Rollout, ...] = Field(default=(), exclude_if=lambda rollouts: not rollouts)

    def stated_by(self, place: str) -> tuple[Metadata, ...]:
        """The ancestor that states the place itself; for all else the document, where it can be stated anew."""
        return (self._ancestors.get(place, self.metadata),)

    @cached_property
    def _ancestors(self) -> Mapping[str, Metadata]:
        return {place: each.metadata for each in self.inherited for place in each.places}
