"""ReferenceValues: what a workload's files and executables may be."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from attestation.digests import well_formed
from policies.model.dialect import Strict
from policies.model.metadata import Document


def _digest(value: object) -> object:
    text = value.removeprefix("sha256:") if isinstance(value, str) else ""
    if not well_formed(text):
        raise ValueError("a digest is 64 lower-case hexadecimal digits, as sha256sum prints them")
    return text


ReferenceDigest = Annotated[str, BeforeValidator(_digest)]


def _mode(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-7]{3,5}", value):
        return int(value, 8)
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError('a mode is written in octal and quoted: "0644"')
    return value


FileMode = Annotated[int, BeforeValidator(_mode), PlainSerializer(lambda mode: f"{mode:04o}")]
"""Permission bits with setuid, setgid and sticky; written as `"0644"`."""


class FileReference(Strict):
    """digests: any of them will do. mode: permission bits, where they matter; None leaves them unjudged."""

    digests: tuple[ReferenceDigest, ...] = Field(min_length=1)
    mode: FileMode | None = None
    uid: int | None = None
    gid: int | None = None


class ReferenceSpec(Strict):
    """files: path -> what it may be. executables: path -> digests that may run, loaders included.

    proxies: Envoy's version -> digests of its builds that may hold the key. What Envoy says of its version itself is
    believed by nobody; the digest tells it. Not written where it is empty, as PolicySpec.proxy.
    """

    files: dict[str, FileReference] = Field(default_factory=dict)
    executables: dict[str, tuple[ReferenceDigest, ...]] = Field(default_factory=dict)
    proxies: dict[str, tuple[ReferenceDigest, ...]] = Field(default_factory=dict, exclude_if=lambda known: not known)


class ReferenceValues(Document):
    kind: Literal["ReferenceValues"] = "ReferenceValues"
    spec: ReferenceSpec = ReferenceSpec()
