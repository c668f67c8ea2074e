"""One round, from evidence to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import partial

from attestation.digests import Digest
from attestation.errors import MalformedEvidence, Refused
from attestation.layers import Layer
from attestation.trust import Tier
from authority import refusals
from authority.breakglass import BreakGlasses
from authority.candidates import candidate
from authority.denying import Denying
from authority.holding import Holding
from authority.instances import Instances
from authority.issuer.issuer import Issuer
from authority.keyring import Keyring
from authority.latest import Latest, Told
from authority.metering import Metering, now
from authority.nonces import Nonces
from authority.rules import Rules, Ruling
from authority.store.records import Accepted, Candidate, Enrolled, Lapsed, Quarantine
from authority.store.store import Store
from authority.verifier import need
from authority.verifier.cache import Appraisals, Bodies, Clean, appraisal_key
from authority.verifier.verify import Expected, Verified, verify
from policies.appraise.appraise import appraise
from policies.appraise.expiry import in_time
from policies.appraise.files import Files
from policies.appraise.reasons import Verdict
from policies.model.policy import Mode
from telemetry.recorder import AppraisalRecord
from wire.messages import Answer, Attest, Cause, Need
from wire.problems import Kind

_LARGE_BODIES = 256 * 1024
"""Above this many bytes an appraisal takes long enough to be kept off the event loop."""


class Rounds:
    """on_quarantine: told, once it is on disk, of a quarantine that a round brought about. clock: Unix seconds."""

    def __init__(
        self,
        store: Store,
        instances: Instances,
        issuer: Issuer,
        keyring: Keyring,
        nonces: Nonces,
        clock: Callable[[], float],
        on_quarantine: Callable[[Enrolled, Cause], None],
        denying: Denying,
        glasses: BreakGlasses,
        holding: Holding,
        metering: Metering,
    ) -> None:
        self._store = store
        self._instances = instances
        self._issuer = issuer
        self._keyring = keyring
        self._nonces = nonces
        self._clock = clock
        self._on_quarantine = on_quarantine
        self._denying = denying
        self._glasses = glasses
        self._holding = holding
        self.latest = Latest()
        self._bodies = Bodies()
        self._clean = Clean()
        self._appraisals = Appraisals()
        self._metering = metering
        metering.cached(self._appraisals)

    async def attest(self, enrolled: Enrolled, request: Attest, rules: Rules) -> Answer | Need:
        """Raises Rejected and Refused; then nothing has been accepted."""
        with self._metering.round() as record:
            return await self._attest(enrolled, request, rules, record)

    async def _attest(
        self, enrolled: Enrolled, request: Attest, rules: Rules, record: AppraisalRecord
    ) -> Answer | Need:
        ruling = rules.of(enrolled.registration)
        # 1. Is the evidence genuine, fresh and this instance's?
        verified = verify(request.evidence, self._expected(enrolled, ruling, rules.epoch))
        record.verified = now()
        # 2. What does it show? Perhaps that takes bodies which are not here yet.
        issued = await self._issued(enrolled, verified)
        verdict = await self._judged(request, verified, ruling, issued)
        if isinstance(verdict, Need):
            return verdict
        record.appraised = now()
        self.latest.put(Told.of(enrolled.registration, verified.claims, request.evidence, self._now_ms()))
        # 3. If it speaks against the workload: does something let it through, or hold it back?
        by = self._glasses.lets_through(enrolled, ruling, verdict)
        held = await self._holding.held(enrolled, ruling, verdict) if by is None else None
        # 4. Does it count? On disk before anybody hears of it.
        judged = candidate(
            enrolled,
            verified,
            verdict,
            ruling,
            issued=issued,
            epoch=rules.epoch,
            latest_ms=self._issuer.latest_ms,
            now_ms=self._now_ms(),
            by=by,
            held=held,
        )
        accepted = await self._accepted(enrolled, judged)
        record.accepted = now()
        # 5. Only now is anything signed.
        counted = self._instances.counted(enrolled, judged, accepted)
        answer = self._answer(counted, accepted, verified, ruling, rules.epoch)
        self._metering.answered(record, verified, accepted, issued=bool(answer.chain))
        return answer

    def body(self, registration: str, digest: Digest) -> bytes | None:
        """A packed layer that an instance of this registration has sent; None where it is not at hand any more."""
        return self._bodies.get(registration, digest)

    def _expected(self, enrolled: Enrolled, ruling: Ruling, policy_epoch: int) -> Expected:
        return Expected(
            enrolled=enrolled,
            nonce_key=self._keyring.nonce_key,
            nonce_epoch=self._keyring.epoch,
            valid_ms=ruling.nonce_valid_ms,
            policy_epoch=policy_epoch,
            now_ms=self._now_ms(),
        )

    async def _issued(self, enrolled: Enrolled, verified: Verified) -> frozenset[int]:
        """The certificate that its Envoy says it serves, where that is one of its own."""
        served = verified.claims.served
        if served is None or not await self._instances.issued(enrolled, served):
            return frozenset()
        return frozenset({served})

    async def _judged(
        self, request: Attest, verified: Verified, ruling: Ruling, issued: Collection[int]
    ) -> Verdict | Need:
        key = appraisal_key(verified.claims, ruling, issued)
        verdict = self._appraisals.get(key)
        if verdict is None or request.bodies or request.outlines:
            # Bodies that nobody asked for are looked at as well: what is sent must be what was claimed.
            asked = need.wanted(verified.claims, ruling.policy)
            bodies = _taken(request, asked, ruling, self._bodies)
            if missing := asked.keys() - bodies.keys():
                return need.missing(request, verified.claims, missing, ruling.name, self._bodies)
            verdict = await _appraised(verified, bodies, ruling, issued, self._clean.of(ruling))
            self._appraisals.put(key, verdict)
            self._clean.learn(verified.claims, bodies, ruling, verdict)
        return in_time(verdict, ruling.governing, self._clock())

    async def _accepted(self, enrolled: Enrolled, judged: Candidate) -> Accepted:
        match await self._store.accept_round(judged, self._now_ms()):
            case Accepted() as accepted:
                if judged.cause is not None and not accepted.repeated:
                    self._instances.forget(enrolled.instance)
                    self._on_quarantine(enrolled, judged.cause)
                elif judged.earned:
                    self._denying.listens(enrolled)
                return accepted
            case Quarantine(cause, cloned):
                self._instances.forget(enrolled.instance)
                if cause is not None:
                    self._on_quarantine(enrolled, cause)
                raise refusals.quarantined(enrolled.instance, cloned=cloned)
            case Lapsed() as why:
                self._instances.forget(enrolled.instance)
                raise refusals.lapsed(enrolled.instance, why)

    def _answer(self, enrolled: Enrolled, accepted: Accepted, verified: Verified, ruling: Ruling, epoch: int) -> Answer:
        ear = self._issuer.ear(accepted)
        excepted = self._glasses.in_force(accepted.break_glass, enrolled, ruling) or bool(accepted.held)
        given = _earns_leaf(accepted.tier, ruling) or excepted
        issued_ms = verified.facts.issued_ms
        return Answer(
            ear=ear,
            chain=self._issuer.chain(accepted, ear, ruling.identity, enrolled.instance) if given else "",
            revocation_version=self._denying.version,
            policy_epoch=epoch,
            issued_ms=issued_ms,
            lease_ms=accepted.lease_end_ms - issued_ms,
            nonce=self._nonces.issue(enrolled, ruling),
            break_glass=self._glasses.told(enrolled, ruling).orders,
        )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _taken(request: Attest, asked: dict[Digest, Layer], ruling: Ruling, bodies: Bodies) -> dict[Digest, bytes]:
    try:
        return need.take(request, asked, ruling.name, bodies)
    except MalformedEvidence as error:
        raise Refused(error.what, kind=Kind.EVIDENCE_MALFORMED, where=error.where) from error


async def _appraised(
    verified: Verified,
    bodies: Mapping[Digest, bytes],
    ruling: Ruling,
    issued: Collection[int],
    clean: Files | None,
) -> Verdict:
    judge = partial(appraise, verified.claims, bodies, ruling.governing, issued=issued, clean=clean)
    try:
        if sum(map(len, bodies.values())) > _LARGE_BODIES:
            return await asyncio.to_thread(judge)
        return judge()
    except MalformedEvidence as error:
        raise Refused(
            f"a layer that does not parse: {error.what}", kind=Kind.EVIDENCE_MALFORMED, where=error.where
        ) from error


def _earns_leaf(tier: Tier, ruling: Ruling) -> bool:
    """In enforce what affirms, and warnings where policy serves them. Audit closes nothing, so it issues whatever the
    verdict, which is in the leaf.

    In observe somebody else's identity stays, and nothing of ours is served.
    """
    match ruling.policy.spec.mode:
        case Mode.ENFORCE:
            return ruling.policy.spec.opens(tier)
        case Mode.AUDIT:
            return True
        case Mode.OBSERVE:
            return False
