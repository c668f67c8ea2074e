"""The processes layer as bytes: what kinds of process run, not how many nor under which pids.

Pids and counts are volatile and stay outside, so that a server which forks the same worker again is the same
workload. JSON with sorted keys and no white space, because the measurer has nothing but the standard library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from attestation import digests, strictjson
from attestation.digests import Digest
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.plain import build

_MOST_KINDS = 4096
_MOST_SECCOMP = 2
_CAPABILITIES = re.compile(r"[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True, order=True)
class ProcessKind:
    """A kind of process: two running processes with the same values are one kind.

    loader: the ELF interpreter (PT_INTERP), empty when static. capabilities: CapEff in hex. seccomp: 0 off,
    1 strict, 2 filter. namespaces: `mnt:4026531841`-style links, sorted, that identify where it lives.
    """

    executable: str
    digest: Digest
    loader: str
    loader_digest: Digest
    uid: int
    gid: int
    capabilities: str
    no_new_privileges: bool
    seccomp: int
    namespaces: tuple[str, ...]
    deleted: bool = False


def pack(kinds: Iterable[ProcessKind]) -> bytes:
    """The canonical bytes of a set of kinds."""
    return json.dumps([asdict(kind) for kind in sorted(set(kinds))], sort_keys=True, separators=(",", ":")).encode()


def unpack(body: bytes) -> tuple[ProcessKind, ...]:
    """Raises MalformedEvidence for bytes that `pack` cannot have made."""
    try:
        kinds = build(tuple[ProcessKind, ...], strictjson.loads(body), where="processes layer")
    except InvalidInput as error:
        raise MalformedEvidence("the process list does not parse", where="processes layer") from error
    if len(kinds) > _MOST_KINDS or pack(kinds) != body or not all(map(_possible, kinds)):
        raise MalformedEvidence("the process list is not in its canonical form", where="processes layer")
    return kinds


def _possible(kind: ProcessKind) -> bool:
    known = all(not each or digests.well_formed(each) for each in (kind.digest, kind.loader_digest))
    ids = all(0 <= each < 1 << 32 for each in (kind.uid, kind.gid))
    return (
        known and ids and 0 <= kind.seccomp <= _MOST_SECCOMP and _CAPABILITIES.fullmatch(kind.capabilities) is not None
    )


def digest(body: bytes) -> Digest:
    """The layer digest of a packed process list."""
    return digests.tagged("layer/processes", body)
