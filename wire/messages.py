"""What a sidecar and its authority say to each other: frozen values, strict CBOR.

Over WebSocket each is one binary frame; the answer carries the number of its request, a push carries 0. Over HTTP
the body is a `Posted` in a COSE_Sign1 (wire/proofs.py). Times are Unix milliseconds by the authority's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attestation import cbor
from attestation.detectors.alerts import Alert, Whereabouts
from attestation.digests import Digest
from attestation.drift import Drift
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.facts import Actor
from attestation.instance import InstanceId
from attestation.plain import build, plain, since
from attestation.violation import ViolationClass
from wire.problems import Problem
from wire.versions import OURS, Version

MEDIA_TYPE = "application/cbor"
MOST_FRAME = 32 * 1024 * 1024
MOST_BODY = 24 * 1024 * 1024
MOST_DENIED, MOST_DENIED_LEAVES, MOST_DENIED_ADDRESSES = 500, 1000, 1000
"""Of one Denials altogether: it has to fit into a frame, and its CRL into every handshake of every peer."""
MOST_ADDRESSES = 16
MOST_ORDERS = 16
PUSH = 0


@dataclass(frozen=True, slots=True)
class Nonce:
    """value: opaque. valid_ms: how long it may be used. full: the next round must read every layer in full."""

    value: bytes
    sequence: int
    issued_ms: int
    valid_ms: int
    full: bool


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an instance is quarantined. id: attestation.release.cause_id. kind: tamper, order or clone."""

    id: str
    kind: str
    text: str
    at_ms: int
    generation: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether an instance is quarantined, by which causes. release: the last signed release order, or empty."""

    quarantined: bool
    causes: tuple[Cause, ...]
    release: str = ""


# Sidecar to authority.


@dataclass(frozen=True, slots=True)
class Enrol:
    """With one of join_token and ticket. key: DER SubjectPublicKeyInfo of the evidence key, which signs this.

    unclean: the sidecar knows that its last run did not end in order.
    """

    instance: InstanceId
    key: bytes
    join_token: str = ""
    ticket: str = ""
    unclean: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a session: signed by the enrolled evidence key. challenge: from the 401 that came before."""

    instance: InstanceId
    challenge: bytes


@dataclass(frozen=True, slots=True)
class Posted:
    """A request by HTTP. request: its frame."""

    instance: InstanceId
    request: bytes


@dataclass(frozen=True, slots=True)
class AskNonce:
    """Answered by Nonce."""


@dataclass(frozen=True, slots=True)
class AskPolicy:
    """Answered by PolicyChanged."""


@dataclass(frozen=True, slots=True)
class AskDenials:
    """Answered by Denials. For who missed a push: one comes with every session that opens, and with every change."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """Where this instance's Envoy listens for its peers, altogether. Answered by Done.

    addresses: attestation.addresses has their one form; MOST_ADDRESSES of them. No part of Enrol, which comes before
    a version is agreed on.
    """

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where this instance runs, as detectors of somebody else's would name it. Answered by Done, and known for as long
    as the session lasts, so that it is only said in one. The sidecar's word, which brings it alerts and nothing else.
    """

    where: Whereabouts


@dataclass(frozen=True, slots=True)
class Noted:
    """A detector's alert about this workload that policy only observes. Answered by Done; only said in a session.

    untold: how many there were before it of which nobody was told, for there were too many.
    """

    alert: Alert
    untold: int = 0


@dataclass(frozen=True, slots=True)
class Body:
    """A packed layer, re-hashed on arrival under its layer's domain."""

    digest: Digest
    content: bytes


@dataclass(frozen=True, slots=True)
class Outline:
    """The parts of a body (attestation/parts.py). digest: of the body. parts: their digests, 32 bytes each."""

    digest: Digest
    parts: bytes


@dataclass(frozen=True, slots=True)
class Attest:
    """Answered by Answer, or by Need: then the same evidence comes again with what is needed.

    in_parts: outlines and parts may be asked for. outlines: of bodies of which the receiver has most. parts: of those,
    what it lacks.
    """

    evidence: bytes
    bodies: tuple[Body, ...] = ()
    in_parts: bool = since(6, False)
    outlines: tuple[Outline, ...] = since(6, ())
    parts: tuple[bytes, ...] = since(6, ())


@dataclass(frozen=True, slots=True)
class Report:
    """The sidecar closed because of this. Answered by Standing, after it is on disk.

    From kind on: as attestation.violation.Violation has them, empty where nobody knows. What is held is told as well.
    """

    generation: int
    violation_class: ViolationClass
    cause: str
    at_ms: int
    kind: str = since(1, "")
    layer: str = since(1, "")
    subject: str = since(1, "")
    process: Actor | None = since(1, None)
    rule: str = since(1, "")
    mend: str = since(1, "")
    allow: str = since(1, "")
    found: str = since(5, "")


@dataclass(frozen=True, slots=True)
class AskHold:
    """This drift would close, under a policy that lets only a share of the instances close for one. Answered by Hold.

    number: of this question; each has a higher one than the one before. drifts: all that the sidecar knows of, and
    MOST_DRIFTS of attestation.drift at most. Only said in a session: who has none closes.
    """

    number: int
    drifts: tuple[Drift, ...]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """This run ends in order. Answered by Done."""


# Authority to sidecar.


@dataclass(frozen=True, slots=True)
class Enrolment:
    """policy: the signed policy document (JWS). bundle: PEM. result_key: DER SubjectPublicKeyInfo."""

    spiffe_id: str
    ticket: str
    nonce: Nonce
    policy: str
    policy_epoch: int
    bundle: str
    result_key: bytes
    standing: Standing


@dataclass(frozen=True, slots=True)
class Need:
    """Bodies that the verifier has not seen. Asked only of who says `in_parts`: outlines: bodies of which it wants the
    outline first, or the whole. parts: digests of parts that it lacks, of the outlines that it was given.
    """

    digests: tuple[Digest, ...]
    outlines: tuple[Digest, ...] = since(6, ())
    parts: tuple[Digest, ...] = since(6, ())


@dataclass(frozen=True, slots=True)
class Answer:
    """One round's result. The lease ends at issued_ms + lease_ms, counted from the issue of the round's nonce.

    chain: PEM, leaf first; empty when no certificate was earned. nonce: the next one. break_glass: as BreakGlass says
    it, so that nobody needs a session to hear of it.
    """

    ear: str
    chain: str
    revocation_version: int
    policy_epoch: int
    issued_ms: int
    lease_ms: int
    nonce: Nonce
    break_glass: tuple[str, ...] = since(4, ())


@dataclass(frozen=True, slots=True)
class Hold:
    """number: of the question. held: stay open until the lease ends, or until a result or HoldOver says otherwise; else
    close. closed, live: how many of the registration's instances are closed for it, of how many.
    """

    number: int
    held: bool
    closed: int
    live: int


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more to say."""


# Pushed by the authority.


@dataclass(frozen=True, slots=True)
class AttestNow:
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class Quarantined:
    cause: Cause


@dataclass(frozen=True, slots=True)
class Released:
    """order: a signed release (attestation/release.py)."""

    order: str


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """document: JWS of {epoch, policy, references, registration}."""

    epoch: int
    document: str


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """The break-glass orders that are in force for this instance: all of them, MOST_ORDERS at most. One that was told
    before and is not among them has ended.

    orders: as operators signed them (attestation/breakglass.py).
    """

    orders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HoldOver:
    """What was held closes now. why: for the log."""

    why: str


@dataclass(frozen=True, slots=True)
class Alerted:
    """Detectors' alerts that came to the authority, and may be about this instance: the sidecar finds out."""

    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class DeniedLeaf:
    """serial: as in the certificate, big-endian without leading zeros. fingerprint: SHA-256 of its DER, lower-case hex.

    not_after_ms: its end.
    """

    serial: bytes
    fingerprint: str
    not_after_ms: int


@dataclass(frozen=True, slots=True)
class Denied:
    """An instance that peers refuse, by any of three signs: the subject of its leaves, whose OU is the instance; its
    leaves; where it listens, as far as no other live instance claims to listen there.

    cause: the cause's id, which tells a stranger nothing. leaves: those that may still be valid; in a long list the
    oldest are left out first, and the subject has to do.
    """

    instance: InstanceId
    spiffe_id: str
    cause: str
    leaves: tuple[DeniedLeaf, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Denials:
    """Whom peers refuse now: the whole list, which replaces the one before. Latest first, MOST_DENIED of them.

    version: rises with every change, also when the authority restarts or loses its store; 0 while there was never
    anybody. crl: PEM, of the intermediate that signs
    leaves, with exactly the leaves in `denied`; never empty. It is valid until the intermediate itself ends, because
    a CRL that ran out would make Envoy refuse everybody.
    """

    version: int
    denied: tuple[Denied, ...]
    crl: bytes


Request = AskNonce | AskPolicy | AskDenials | Reachable | Placed | Noted | Attest | Report | AskHold | Goodbye
Push = AttestNow | Quarantined | Released | PolicyChanged | Denials | BreakGlass | HoldOver | Alerted
Reply = Nonce | Need | Answer | Standing | PolicyChanged | Denials | Hold | Done | Enrolment | Problem
Message = Request | Push | Reply | Enrol | Hello | Posted

_SHAPES: dict[str, type[Any]] = {shape.__name__: shape for shape in Message.__args__}
_ADDED: dict[type[Any], int] = {
    AskDenials: 2,
    Reachable: 2,
    Denials: 2,
    BreakGlass: 4,
    AskHold: 5,
    Hold: 5,
    HoldOver: 5,
    Placed: 8,
    Noted: 8,
    Alerted: 8,
}
"""The minor that brought a kind; the others are of 1.0."""


def knows(version: Version, shape: type[Any]) -> bool:
    """Whether a peer of this version knows messages of this kind."""
    return _ADDED.get(shape, 0) <= version.minor


@dataclass(frozen=True, slots=True)
class Frame:
    """number: of the request, repeated by its answer; PUSH for what nobody asked for."""

    number: int
    message: Message


def encode(message: Message, number: int = PUSH, *, version: Version = OURS.highest) -> bytes:
    """version: what the reader speaks; a field that came later stays at home.

    Raises InvalidInput for a kind that came later, and when the frame would be larger than MOST_FRAME.
    """
    if not knows(version, type(message)):
        raise InvalidInput(f"a {type(message).__name__} for a peer that speaks wire {version}", where="wire")
    frame = cbor.dumps({"is": type(message).__name__, "no": number, "in": plain(message, minor=version.minor)})
    if len(frame) > MOST_FRAME:
        raise InvalidInput(f"a {type(message).__name__} of {len(frame)} bytes", where="wire")
    return frame


def decode(frame: bytes, *, version: Version = OURS.highest) -> Frame:
    """`encode` reversed. Raises InvalidInput for what `version` does not know, and for missing or mistyped fields."""
    envelope = cbor.loads(frame, most_bytes=MOST_FRAME)
    if not isinstance(envelope, dict) or envelope.keys() != {"is", "no", "in"}:
        raise MalformedEvidence("a frame that is no message", where="wire")
    name, number = envelope["is"], envelope["no"]
    shape = _SHAPES.get(name) if isinstance(name, str) else None
    if shape is None or not knows(version, shape) or type(number) is not int or number < 0:
        raise MalformedEvidence("a frame of an unknown kind, or without a number", where="wire")
    return Frame(number, build(shape, envelope["in"], where=shape.__name__, minor=version.minor))
