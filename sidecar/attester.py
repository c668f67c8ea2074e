"""One round: nonce, measure, attest, deliver's input. A story from top to bottom; it decides nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attestation import evidence
from attestation.claims import Claims
from attestation.coverage import Coverage
from attestation.digests import Digest
from attestation.errors import MalformedResult
from attestation.instance import InstanceId
from attestation.keys import public_der
from attestation.layers import Layer
from attestation.results import Result
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import Violation, ViolationClass
from policies.model.policy import Mode
from sidecar import answers, clock
from sidecar.answers import Asked, Believed, Membership
from sidecar.delivery.resources import Identity
from sidecar.observations import Measured, Observations
from sidecar.states import Appraised
from telemetry.recorder import RoundRecord
from wire.messages import Nonce
from wire.session import AuthorityClient

_MOST_SPENT = 64
REQUEST_SECONDS = 10.0
"""How long one exchange with the authority, or one measurement, may take before the round is given up."""


@dataclass(frozen=True, slots=True)
class HeldNonce:
    """A nonce with CLOCK_BOOTTIME at which the request that brought it was sent: a lease's earliest beginning."""

    nonce: Nonce
    sent: float

    def usable(self, now: float) -> bool:
        """Not so old that the authority would refuse it; half of its validity is left for the round itself."""
        return (now - self.sent) * 1000 < self.nonce.valid_ms / 2


@dataclass(frozen=True, slots=True)
class LeafKey:
    """The certificate's key, replaced at half of a lease. made: CLOCK_BOOTTIME seconds."""

    key: ec.EllipticCurvePrivateKey
    made: float

    @classmethod
    def make(cls, now: float) -> LeafKey:
        return cls(ec.generate_private_key(ec.SECP256R1()), now)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round came to. identity: None where the answer carried no certificate. measured: what was signed."""

    event: Appraised
    identity: Identity | None
    measured: Measured
    result: Result
    policy_epoch: int
    record: RoundRecord


@dataclass(frozen=True, slots=True)
class Standpoint:
    """What the round signs besides the measurement, as it was when the evidence was made."""

    generation: int
    policy_epoch: int
    revocation: int
    coverage: Coverage
    layers: tuple[Layer, ...]
    required: tuple[Layer, ...]
    freshness: float
    mode: Mode


class Attester:
    """Runs rounds for one enrolled instance, one at a time.

    standpoint: read just before signing, so that a violation during the measurement makes this very round void.
    served: asked for what Envoy serves (sidecar/serving.py), where the proxy is measured. caught_up: awaited with the
    version of the list of denials that an answer speaks of, and the certificate that it brought, before either is
    served. break_glass: told of the orders in an answer before its result is used. lets_through: whether the order of
    that id is in force here.
    """

    def __init__(
        self,
        client: AuthorityClient,
        membership: Membership,
        first: HeldNonce,
        instance: InstanceId,
        boot_id: str,
        evidence_key: ec.EllipticCurvePrivateKey,
        observations: Observations,
        standpoint: Callable[[], Standpoint],
        served: Callable[[], Awaitable[int | None]],
        caught_up: Callable[[int, bytes], Awaitable[None]],
        break_glass: Callable[[tuple[str, ...]], None],
        lets_through: Callable[[str], bool],
    ) -> None:
        self._client = client
        self._instance = instance
        self._boot_id = boot_id
        self._evidence_key = evidence_key
        self._observations = observations
        self._standpoint = standpoint
        self._served = served
        self._caught_up = caught_up
        self._break_glass = break_glass
        self._lets_through = lets_through
        self._membership = membership
        self._nonce: HeldNonce | None = first
        self._spent: deque[bytes] = deque(maxlen=_MOST_SPENT)
        self._leaf: LeafKey | None = None

    async def round(self, *, full: bool) -> Outcome:
        """Raises Unavailable (try again), Refused (the authority said no) and InvalidInput (it lied)."""
        record = RoundRecord(began=clock.now().boot)
        # 1. A nonce, with the time it was asked for.
        held = await self._take_nonce()
        record.full = full or held.nonce.full
        record.nonce = clock.now().boot
        # 2. A measurement that began after this round did.
        layers = self._standpoint().layers
        measured = await self._observations.measured(layers, record.began, full=record.full, timeout=REQUEST_SECONDS)
        served = await self._served() if Layer.PROXY in layers else None
        record.measured = clock.now().boot
        # 3. Claims about it, signed over the nonce. From here on the bytes are frozen.
        standpoint, leaf = self._standpoint(), self._current_leaf()
        signed = evidence.sign(
            self._claims(held.nonce, standpoint, measured, leaf, served),
            held.nonce.value,
            self._evidence_key,
            issued_at=clock.now().wall,
            minor=self._client.version.minor,
        )
        record.signed = sent = clock.now().boot
        # 4. The authority's answer, with the next nonce.
        answer = await self._client.attest(signed, lambda digest: _body(measured, digest))
        self._nonce = HeldNonce(answer.nonce, sent)
        record.answered = clock.now().boot
        # 5. What it comes to, believed only after it is checked.
        asked = Asked(
            held.nonce.value,
            held.nonce.sequence,
            held.sent,
            self._instance,
            standpoint.generation,
            standpoint.policy_epoch,
            standpoint.mode,
            standpoint.freshness,
            leaf.key.public_key(),
        )
        believed = answers.believe(answer, asked, self._membership, clock.now())
        # 6. Whom to refuse under the new certificate.
        if believed.chain:
            await self._caught_up(answer.revocation_version, believed.chain)
        # 7. What lets it through, where it does not affirm.
        self._break_glass(answer.break_glass)
        return self._outcome(believed, asked, standpoint, measured, leaf, record)

    async def _take_nonce(self) -> HeldNonce:
        """The prefetched nonce, once; a fresh one where there is none or it grew old."""
        held, self._nonce = self._nonce, None
        if held is None or not held.usable(clock.now().boot):
            sent = clock.now().boot
            held = HeldNonce(await self._client.challenge(), sent)
        self._spend(held.nonce.value)
        return held

    def _spend(self, nonce: bytes) -> None:
        if not evidence.LEAST_NONCE <= len(nonce) <= evidence.MOST_NONCE:
            what = f"the authority gave out a nonce of {len(nonce)} bytes"
        elif nonce in self._spent:
            what = "the authority gave out a nonce for the second time"
        else:
            self._spent.append(nonce)
            return
        raise MalformedResult(what, where="nonce", mend="Nothing was signed over it; look at the authority's log.")

    def _current_leaf(self) -> LeafKey:
        now = clock.now().boot
        if self._leaf is None or now - self._leaf.made > self._standpoint().freshness / 2:
            self._leaf = LeafKey.make(now)
        return self._leaf

    def _claims(
        self, nonce: Nonce, standpoint: Standpoint, measured: Measured, leaf: LeafKey, served: int | None
    ) -> Claims:
        return Claims(
            instance=self._instance,
            sequence=nonce.sequence,
            generation=standpoint.generation,
            policy_epoch=standpoint.policy_epoch,
            revocation=standpoint.revocation,
            leaf_key=public_der(leaf.key.public_key()),
            boot_id=self._boot_id,
            layers=measured.claims(clock.now().boot),
            coverage=standpoint.coverage,
            served=served,
            calls=measured.calls,
        )

    def _outcome(
        self,
        believed: Believed,
        asked: Asked,
        standpoint: Standpoint,
        measured: Measured,
        leaf: LeafKey,
        record: RoundRecord,
    ) -> Outcome:
        result = believed.result
        event = Appraised(
            tier=result.status,
            generation=result.generation,
            sequence=asked.sequence,
            measured_from=min(
                (each.full_began for each in measured.observations if each.layer in standpoint.required),
                default=measured.full_began,
            ),
            lease=believed.lease,
            cause=_contraindication(result, record.began) if _speaks_against(result) else None,
            waived=bool(result.break_glass) and self._lets_through(result.break_glass),
            held=bool(result.held),
        )
        return Outcome(event, self._identity(believed, leaf), measured, result, result.policy_epoch, record)

    def _identity(self, believed: Believed, leaf: LeafKey) -> Identity | None:
        if not believed.chain:
            return None
        key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Identity(believed.chain, key, self._membership.bundle)


def _body(measured: Measured, digest: Digest) -> bytes:
    body = measured.bodies.get(digest)
    if body is None:
        raise MalformedResult(
            f"the authority asks for the body {digest[:12]!r}, which this round does not claim",
            where="need",
            mend="It mixes up its attesters: look at its log.",
        )
    return body


def _speaks_against(result: Result) -> bool:
    return result.status is Tier.CONTRAINDICATED or bool(result.held)


def _contraindication(result: Result, at: float) -> Violation:
    """A verdict against us, as a cause. What it rests on may have been there before we watched: drift, not an event."""
    text = result.reasons[0] if result.reasons else "the authority gave no reason"
    return Violation(
        Signal.CONTRAINDICATED,
        ViolationClass.DRIFT,
        Layer.ATTESTER,
        text.partition(":")[0],
        text,
        at,
        rule=f"policy epoch {result.policy_epoch}",
        mend="Repair what the reason names; the next full measurement shows it.",
    )
