"""The memory layer as bytes: what the workload's processes have mapped as code, each thing once.

Addresses, pids and how often a thing is mapped are volatile and stay outside, and an amount of memory is rounded up to
a power of two, so that the same programs give the same digest. JSON as of attestation/processes.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from attestation import digests, strictjson
from attestation.digests import Digest
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.plain import build

MOST_CODE = 16_384
"""Things of one workload; a measurer that finds more says so, and tells the gravest (`CodeKind.UNTOLD`)."""
MOST_PATH = 4096
LEAST_AMOUNT = 4096
_MOST_NUMBER = 1 << 62


class CodeKind(StrEnum):
    """What can be executed, by where it comes from."""

    FILE = "file"
    """A file, mapped executable."""
    ANONYMOUS = "anonymous"
    """Memory of no file, as a compiler at run time makes it, and an executable stack."""
    MEMFD = "memfd"
    """Memory with a descriptor and without a path: memfd_create(2), shared memory."""
    PATCHED = "patched"
    """A page of a file's code that is not what the file holds."""
    PROBED = "probed"
    """The same, and breakpoints are all that differs: a uprobe's or a debugger's."""
    UNREAD = "unread"
    """A process whose memory we may not look into."""
    UNTOLD = "untold"
    """There is more than can be told."""


@dataclass(frozen=True, slots=True, order=True)
class Code:
    """Something that the workload's processes can execute.

    executable: path of what the process runs; empty of a FILE that nobody has mapped writable, which is judged alone.
    path, digest: of the file, as the workload knows it; the digest is empty where it could not be read. writable: the
    same mapping is writable and executable. deleted: no name leads to the file. amount: bytes of it in one process,
    the most of any, as `rounded` has it. offset: in the file, of the page that differs.
    """

    kind: CodeKind
    executable: str = ""
    path: str = ""
    digest: Digest = ""
    writable: bool = False
    deleted: bool = False
    amount: int = 0
    offset: int = 0


def rounded(amount: int) -> int:
    """Up to a power of two, and to a page: what a compiler adds at run time changes it a few times in its life."""
    return max(LEAST_AMOUNT, 1 << (amount - 1).bit_length()) if amount > 0 else 0


def pack(code: Iterable[Code]) -> bytes:
    """The canonical bytes of a set of things."""
    return json.dumps([asdict(each) for each in sorted(set(code))], sort_keys=True, separators=(",", ":")).encode()


def unpack(body: bytes) -> tuple[Code, ...]:
    """Raises MalformedEvidence for bytes that `pack` cannot have made."""
    try:
        code = build(tuple[Code, ...], strictjson.loads(body), where="memory layer")
    except InvalidInput as error:
        raise MalformedEvidence("the list of code does not parse", where="memory layer") from error
    if len(code) > MOST_CODE or pack(code) != body or not all(map(_possible, code)):
        raise MalformedEvidence("the list of code is not in its canonical form", where="memory layer")
    return code


def _possible(code: Code) -> bool:
    known = not code.digest or digests.well_formed(code.digest)
    texts = max(len(code.executable), len(code.path)) <= MOST_PATH
    return known and texts and rounded(code.amount) == code.amount < _MOST_NUMBER and 0 <= code.offset < _MOST_NUMBER


def digest(body: bytes) -> Digest:
    """The layer digest of a packed list of code."""
    return digests.tagged("layer/memory", body)
