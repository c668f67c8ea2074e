"""RFC 9457 problem documents: every refusal has a stable type, a status and something to do about it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from attestation.errors import InvalidInput, ProofbeatError, Refused, Unavailable
from attestation.plain import build, plain

BASE = "https://proofbeat.dev/problems/"
MEDIA_TYPE = "application/problem+json"


class Kind(StrEnum):
    """The stable part of a problem's `type`. wire/document.py says of each what it means."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    TOO_MANY = "too-many"
    NOT_FOUND = "not-found"
    VERSION_UNSUPPORTED = "version-unsupported"
    TOKEN_INVALID = "token-invalid"  # noqa: S105 - the name of a problem
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - the same
    TOKEN_USED = "token-used"  # noqa: S105 - the same
    TICKET_INVALID = "ticket-invalid"
    TICKET_SPENT = "ticket-spent"
    PROOF_INVALID = "proof-invalid"
    INSTANCE_UNKNOWN = "instance-unknown"
    INSTANCE_QUARANTINED = "instance-quarantined"
    REGISTRATION_UNKNOWN = "registration-unknown"
    REGISTRATION_UNRULED = "registration-unruled"
    REGISTRATION_CONFLICT = "registration-conflict"
    EVIDENCE_MALFORMED = "evidence-malformed"
    EVIDENCE_ALGORITHM = "evidence-algorithm"
    EVIDENCE_PROFILE = "evidence-profile"
    EVIDENCE_KEY = "evidence-key"
    EVIDENCE_SIGNATURE = "evidence-signature"
    EVIDENCE_INSTANCE = "evidence-instance"
    EVIDENCE_CLONED = "evidence-cloned"
    NONCE_FORGED = "nonce-forged"
    NONCE_FOREIGN = "nonce-foreign"
    NONCE_STALE = "nonce-stale"
    NONCE_PASSED = "nonce-passed"
    SEQUENCE_MISMATCH = "sequence-mismatch"
    GENERATION_PAST = "generation-past"
    POLICY_EPOCH_STALE = "policy-epoch-stale"
    LEAF_KEY = "leaf-key"
    CLAIMS_IMPOSSIBLE = "claims-impossible"
    FULL_ROUND_REQUIRED = "full-round-required"
    BODY_MISMATCH = "body-mismatch"
    RELEASE_VOID = "release-void"
    BREAK_GLASS_VOID = "break-glass-void"
    HOLD_OVER = "hold-over"
    CONFIGURATION = "configuration"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


_STATUS: dict[Kind, int] = {
    Kind.TOO_LARGE: 413,
    Kind.TOO_SLOW: 408,
    Kind.TOO_MANY: 429,
    Kind.NOT_FOUND: 404,
    Kind.TOKEN_INVALID: 401,
    Kind.TOKEN_EXPIRED: 401,
    Kind.TOKEN_USED: 401,
    Kind.TICKET_INVALID: 401,
    Kind.TICKET_SPENT: 401,
    Kind.PROOF_INVALID: 401,
    Kind.INSTANCE_UNKNOWN: 401,
    Kind.INSTANCE_QUARANTINED: 403,
    Kind.REGISTRATION_UNKNOWN: 404,
    Kind.REGISTRATION_UNRULED: 403,
    Kind.REGISTRATION_CONFLICT: 409,
    Kind.EVIDENCE_KEY: 403,
    Kind.EVIDENCE_SIGNATURE: 403,
    Kind.EVIDENCE_INSTANCE: 403,
    Kind.EVIDENCE_CLONED: 409,
    Kind.NONCE_FORGED: 403,
    Kind.NONCE_FOREIGN: 403,
    Kind.NONCE_STALE: 409,
    Kind.NONCE_PASSED: 409,
    Kind.GENERATION_PAST: 409,
    Kind.POLICY_EPOCH_STALE: 409,
    Kind.FULL_ROUND_REQUIRED: 409,
    Kind.RELEASE_VOID: 409,
    Kind.BREAK_GLASS_VOID: 409,
    Kind.HOLD_OVER: 409,
    Kind.UNAVAILABLE: 503,
    Kind.INTERNAL: 500,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed step of a verification. step: its number. name: its stable word."""

    step: int
    name: str
    what: str


@dataclass(frozen=True, slots=True)
class Problem:
    """The document. faults: every failed step, where the request was evidence."""

    type: str
    title: str
    status: int
    detail: str
    where: str = ""
    mend: str = ""
    faults: tuple[Fault, ...] = ()

    @property
    def kind(self) -> str:
        return self.type.removeprefix(BASE)


class Rejected(Refused):
    """Refused, with every step that failed."""

    def __init__(
        self, what: str, *, kind: str, where: str = "", mend: str = "", faults: tuple[Fault, ...] = ()
    ) -> None:
        self.faults = faults
        super().__init__(what, kind=kind, where=where, mend=mend)


def of(error: ProofbeatError) -> Problem:
    """The document that tells the other side about an error of ours."""
    faults = error.faults if isinstance(error, Rejected) else ()
    kind = _kind(error)
    return Problem(
        type=BASE + kind,
        title=kind.replace("-", " ").capitalize(),
        status=status_of(kind),
        detail=error.what,
        where=error.where,
        mend=error.mend,
        faults=faults,
    )


def status_of(kind: Kind) -> int:
    """The HTTP status that goes with it."""
    return _STATUS.get(kind, 400)


def error_of(problem: Problem) -> ProofbeatError:
    """`of` reversed: Unavailable where trying again may help, Rejected otherwise."""
    if problem.status >= 500:
        return Unavailable(problem.detail, where=problem.where, mend=problem.mend)
    return Rejected(problem.detail, kind=problem.kind, where=problem.where, mend=problem.mend, faults=problem.faults)


def to_json(problem: Problem) -> bytes:
    return json.dumps({name: value for name, value in plain(problem).items() if value not in ("", [])}).encode()


def from_json(body: bytes) -> Problem:
    """Raises InvalidInput for a document that is no problem of ours."""
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("an answer that is neither a result nor a problem", where="authority") from error
    return build(Problem, fields, where="problem")


def _kind(error: ProofbeatError) -> Kind:
    if isinstance(error, Refused):
        return Kind(error.kind)
    if isinstance(error, Unavailable):
        return Kind.UNAVAILABLE
    return Kind.MALFORMED if isinstance(error, InvalidInput) else Kind.INTERNAL
