"""What the store hands out: plain values, one a question."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attestation.digests import Digest
from attestation.facts import Actor
from attestation.instance import InstanceId
from attestation.trust import Tier
from wire.messages import Cause, Standing


class State(StrEnum):
    """What is known here of an instance's traffic; the sidecar may have closed it already.

    WARNED: open by a result of tier warning, as its policy lets it. HELD: open in spite of drift, for which enough
    others are closed. EXCEPTED: not affirmed, and open by a break-glass order.
    """

    UNATTESTED = "unattested"
    FRESH = "fresh"
    WARNED = "warning"
    HELD = "held"
    EXCEPTED = "break-glass"
    STALE = "stale"
    QUARANTINED = "quarantined"
    ENDED = "ended"

    @property
    def open(self) -> bool:
        return self in (State.FRESH, State.WARNED, State.HELD, State.EXCEPTED)


class Happened(StrEnum):
    """The events of an instance's history."""

    ENROLLED = "enrolled"
    AFFIRMED = "affirmed"
    WARNED = "warned"
    HELD = "held"
    HOLD_OVER = "hold-over"
    NOT_AFFIRMED = "not-affirmed"
    VIOLATION = "violation"
    WOULD_HAVE = "would-have"
    OBSERVED = "observed"
    ORDERED = "ordered"
    CLONED = "cloned"
    RELEASED = "released"
    EXCEPTED = "break-glass"
    EXCEPTION_ENDED = "break-glass-over"
    LEASE_ENDED = "lease-ended"
    SESSION_LOST = "session-lost"
    GOODBYE = "goodbye"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an instance was closed, as far as anybody knows. Text is harmless to show (attestation/wording.py).

    id: the cause's, empty for what has none. violation_class: drift, tamper, order or clone. rule, place: what forbids
    it, and where that stood then (`web.yaml:12`). allow: YAML. at_ms: of the fact, by the sidecar's clock.
    """

    id: str
    kind: str
    violation_class: str
    text: str
    at_ms: int
    layer: str = ""
    subject: str = ""
    process: Actor | None = None
    rule: str = ""
    place: str = ""
    mend: str = ""
    allow: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """One change. at_ms: when it was recorded here, Unix milliseconds. state: from then on."""

    at_ms: int
    event: Happened
    state: State
    text: str
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An instance as enrolled. public_key: DER of its evidence key. sequence, generation: of its last round.

    addresses: where it says that its Envoy listens for peers. serials: serial numbers of the certificates of its latest
    rounds, as far as they are remembered.
    """

    instance: InstanceId
    registration: str
    thumbprint: Digest
    public_key: bytes
    sequence: int
    generation: int
    full_required: bool
    standing: Standing
    addresses: frozenset[str] = frozenset()
    serials: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A round that verification and appraisal let through; the store decides whether it counts.

    full: every layer was read in full since the nonce was issued. result: the EAR's payload. cause: what the
    appraisal found and no measurement heals, which quarantines. closes: policy enforces. tolerated: it has
    warnings that policy serves. explanation: of what does not affirm. revocation: the list of denials that its Envoy
    has acknowledged. served: the serial number of the certificate that its Envoy serves, where that is one of its own.
    break_glass: the order by which it gets a lease all the same. held: the id of the drift that closes nothing here,
    for enough others are closed for it.
    """

    instance: InstanceId
    thumbprint: Digest
    sequence: int
    generation: int
    evidence: Digest
    full: bool
    tier: Tier
    result: bytes
    leaf_key: bytes
    not_before: int
    lease_end_ms: int
    cause: Cause | None
    closes: bool = True
    tolerated: bool = False
    explanation: Explanation | None = None
    revocation: int = 0
    served: int | None = None
    break_glass: str = ""
    held: str = ""

    @property
    def earned(self) -> bool:
        """Does it open traffic by itself?"""
        return self.tier is Tier.AFFIRMING or self.tolerated


@dataclass(frozen=True, slots=True)
class Accepted:
    """The round counts: this one, or the one that the same evidence brought before.

    not_before: Unix seconds. repeated: it is an earlier answer, told again. break_glass, held: as of the Candidate.
    """

    tier: Tier
    result: bytes
    leaf_key: bytes
    serial: int
    not_before: int
    lease_end_ms: int
    repeated: bool
    break_glass: str = ""
    held: str = ""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The round does not count: the instance is quarantined, and was already or is by this very round."""

    cause: Cause | None
    cloned: bool


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The round does not count: another nonce is needed. Each field says whether that is the reason."""

    key_replaced: bool = False
    full_required: bool = False
    sequence_passed: bool = False
    generation_past: bool = False
    exception_over: bool = False
    hold_over: bool = False


Decision = Accepted | Quarantine | Lapsed


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A registration for which a break-glass order does not stand any more, nor ever will again. at_ms: Unix ms."""

    registration: str
    why: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A break-glass order that was applied here, once and for all: one that has ended never comes back.

    document: as operators signed it. registrations: those for which it held when it was applied, without those from
    which it was withdrawn since; signed_by: the operators whose signatures did. seen_ms: the latest time at which it
    stood here, which the clock is not believed to have gone back behind. ended_ms: 0 while it has not. Unix
    milliseconds.
    """

    id: str
    document: str
    registrations: tuple[str, ...]
    signed_by: tuple[str, ...]
    applied_ms: int
    seen_ms: int
    ended_ms: int = 0
    ended: str = ""
    withdrawn: tuple[Withdrawn, ...] = ()


@dataclass(frozen=True, slots=True)
class Suspect:
    """A quarantined instance. cause: the id of the first cause that stands. since_ms: when that was recorded here.

    rounds: those that count, the newest first; some of them brought a certificate. addresses: where it listens.
    """

    instance: InstanceId
    cause: str
    since_ms: int
    rounds: tuple[Accepted, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A live instance says that it listens at an address, where a suspect says so, too."""

    address: str
    instance: InstanceId
    registration: str


@dataclass(frozen=True, slots=True)
class Suspects:
    """Those that may hold a certificate, the latest first. claims: to their addresses. left_out: how many more there
    are.
    """

    found: tuple[Suspect, ...]
    claims: tuple[Claim, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Listed:
    """The version of a list of denials, and when it came into force, Unix milliseconds; 0 and 0 before the first."""

    version: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class InstanceState:
    """An instance as operators see it. reasons: of the last round that was accepted. Times in Unix ms, 0 for never.

    gone: nobody speaks for it any more, and nobody needs to look at it (authority/roll.py). revocation: the list of
    denials that its Envoy had acknowledged in its last round. served: the serial number, in hexadecimal, of the
    certificate of its own that its Envoy served then; empty where it served none. held: for what it is held, and how
    many are closed for that; None where it is not.
    """

    instance: InstanceId
    spiffe_id: str
    registration: str
    quarantined: bool
    tier: str
    lease_end_ms: int
    last_round_ms: int
    enrolled_ms: int
    full_required: bool
    generation: int
    causes: tuple[Cause, ...]
    released: tuple[Cause, ...]
    records: tuple[Cause, ...]
    """Drift, and everything under a policy that does not enforce: recorded, and quarantining nobody."""
    reasons: tuple[str, ...]
    state: State
    since_ms: int
    left_ms: int
    ended_clean: bool
    revocation: int
    served: str = ""
    gone: bool = False
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """drift: in words. closed: how many of its registration's instances are closed for it, of how many live ones."""

    drift: str
    closed: int
    live: int

    def __str__(self) -> str:
        return f"held: {self.drift}, {self.closed} of {self.live} closed"
