"""The sidecar put together: one event loop, one state, one line from a fact to Envoy's socket.

`_heard` begins that line: the measurer's datagram is judged, decided and carried out before anything else of this
process runs. Rounds, reports and logs come after it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.channel import Beat, Covered, Fault, Guard, Message, Observed, Pinned, Scope, Swept
from attestation.coverage import Coverage
from attestation.errors import InvalidConfiguration, MalformedResult, ProofbeatError, Refused, Unavailable, WorkloadGone
from attestation.facts import CollectorFact, ExecutionFact, Fact, FileFact, InstanceFact, ProcessFact
from attestation.keys import from_der
from attestation.layers import Layer
from attestation.violation import Violation, ViolationClass
from policies.appraise.violation import violates
from sidecar import clock, freshness
from sidecar.admission import KeyRules
from sidecar.attester import Attester, Outcome, Standpoint
from sidecar.causes import Causes
from sidecar.clock import LeaseTimer
from sidecar.config import SidecarConfig
from sidecar.delivery import poison
from sidecar.delivery.delivery import Delivery, Happening, Told
from sidecar.delivery.resources import Catalogue, Identity
from sidecar.freshness import Now, Phase, Rules, State
from sidecar.governing import Governed, read_governing
from sidecar.latch import Latch
from sidecar.measurement import Measurer, Spawned, spawn
from sidecar.membership import Enrolled, enrol
from sidecar.observations import Observations
from sidecar.reports import Reports
from sidecar.retries import Retries
from sidecar.scheduler import Rounds
from sidecar.standing import StateFolder
from telemetry.names import Event
from wire.messages import AttestNow, PolicyChanged, Push, Quarantined, Released, Report
from wire.problems import Kind
from wire.session import AuthorityClient
from wire.session import Endpoint as AuthorityEndpoint
from xds.admission import Admission, Refusal
from xds.errors import SocketInUse, SocketUnusable
from xds.listening import Endpoint
from xds.peer import Peer
from xds.server import Server

BEATS = 5
"""Heartbeats to the guardian and to Envoy in one dead-man period: four may be lost to a busy machine."""

MOST_EARLY_FACTS = 10_000


class Sidecar:
    """One workload's attester and Envoy's source of identity. Made inside a running loop.

    log: a structured logger. spawned: a measurer started beforehand; else one is started here.
    """

    def __init__(self, config: SidecarConfig, log: Any, spawned: Spawned | None = None) -> None:
        self._config = config
        self._spawned = spawned
        self._log = log
        self._state = State(Rules())
        self._coverage = Coverage()
        self._governed: Governed | None = None
        self._identity: Identity | None = None
        self._early: list[Fact] = []
        self._full_at = 0.0
        self._owed_full: bool | None = None
        self._folder = StateFolder(config.state)
        self._causes = Causes(Latch(config.state), self._latch_failed)
        self._pinned: asyncio.Future[Pinned] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measurer = Measurer(self._heard, self._measurer_lost)
        self._observations = Observations(self._measurer.send)
        self._rounds = Rounds()
        self._retries = Retries()
        self._retry: asyncio.TimerHandle | None = None
        self._timer = LeaseTimer(on_end=lambda: self._step(freshness.Ticked()), on_set=self._wall_clock_set)
        self._client = AuthorityClient(_authority(config), self._pushed)
        self._reports = Reports(self._client, self._reported)
        delivery = config.delivery
        self._client_uids = frozenset(delivery.allow.uids or (os.getuid(),))
        self._key_rules = KeyRules(config.workload.pid, config.workload.cgroup, frozenset(delivery.allow.executables))
        self._server = Server(
            Endpoint(delivery.socket, mode=delivery.socket_mode),
            Admission(self._client_uids, self._admit, self._refused),
            clock=lambda: clock.now().boot,
        )
        self._delivery: Delivery | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        """Until the workload ends, the measurer is lost or the task is cancelled; closed in every case.

        Raises WorkloadGone, InvalidConfiguration, Refused (enrolment), Unavailable (the measurer).
        """
        loop = asyncio.get_running_loop()
        unclean = self._folder.enter()
        async with self._listening():
            self._deliver_under(deadman=5.0, escalate_after=0.25)
            self._measurer.start(loop, self._spawned or spawn())
            self._timer.start(loop)
            try:
                with self._rounds:
                    await self._attest_until_over(unclean, ready)
            finally:
                self._close_for_good()
                self._timer.close(loop)
                await self._client.close()
        self._folder.leave()

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        try:
            await self._server.start()
        except (SocketInUse, SocketUnusable) as error:
            raise InvalidConfiguration(str(error), where="delivery.socket") from error
        try:
            yield
        finally:
            await self._server.close()

    async def _attest_until_over(self, unclean: bool, ready: Callable[[], None]) -> None:
        # 1. Pin the workload: an instance, or an end.
        local = self._config.workload
        self._measurer.send(Scope(local.pid, local.files.include, cgroup=local.cgroup))
        pinned = await self._pinned
        self._log.info(Event.STARTED, instance=str(pinned.instance), pid=os.getpid(), measurer=self._measurer.pid)
        # 2. What an earlier run latched for it stays latched.
        self._state = self._causes.recalled(pinned.instance, self._state)
        # 3. Membership: an identity to ask for, and the policy that rules it.
        evidence_key = ec.generate_private_key(ec.SECP256R1())
        enrolled = await enrol(
            self._client,
            self._folder,
            self._config.enrolment.join_token_file,
            pinned.instance,
            evidence_key,
            unclean=unclean,
            waiting=lambda why, pause: self._log.warning(Event.ENROLMENT_REFUSED, why=why, again_in=round(pause, 2)),
        )
        self._result_key = from_der(enrolled.enrolment.result_key)
        self._adopt(enrolled.enrolment.policy)
        self._log.info(
            Event.ENROLLED, spiffe_id=enrolled.enrolment.spiffe_id, policy_epoch=enrolled.enrolment.policy_epoch
        )
        for cause in enrolled.enrolment.standing.causes:
            self._pushed(Quarantined(cause))
        # 4. Rounds, until something ends them.
        attester = self._attester(pinned, enrolled, evidence_key)
        ready()
        self._rounds.want(full=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._client.hold(), name="session")
            tasks.create_task(self._reports.run(), name="reports")
            tasks.create_task(self._beat_on(), name="heartbeat")
            tasks.create_task(self._attest(attester), name="rounds")
            await self._over

    # The line from a fact to Envoy.

    def _heard(self, message: Message, body: bytes | None) -> None:
        match message:
            case FileFact() | ExecutionFact() | ProcessFact() | CollectorFact():
                self._saw(message)
            case Observed(observation):
                changed = self._observations.observed(observation, body)
                if changed and not self._state.open:
                    self._want_round(full=True)
            case Swept():
                self._delivering.swept(message)
            case InstanceFact():
                self._step(freshness.WorkloadEnded("workload-ended"))
            case Covered(coverage):
                self._coverage = coverage
                self._log.info(Event.COVERAGE, grade=coverage.grade, cutting=coverage.cutting)
            case Pinned():
                if not self._pinned.done():
                    self._pinned.set_result(message)
            case Fault(what, where, mend):
                self._end(Unavailable(what, where=where or "measurer", mend=mend))
            case _:
                self._measurer_lost(f"it sent a {type(message).__name__}, which is ours to send")

    def _saw(self, fact: Fact) -> None:
        if self._governed is None:
            # Nothing is open yet; what was seen before the policy came is judged when it comes.
            self._early.append(fact)
            if len(self._early) > MOST_EARLY_FACTS:
                self._end(Unavailable("more facts than can be kept before enrolment", where="measurer"))
            return
        violation = violates(fact, self._governed.policy, self._governed.references)
        if violation is not None:
            self._step(freshness.Violated(violation))
        elif not self._state.open:
            # While closed, any harmless change may be the repair.
            self._want_round(full=True)

    def _step(self, event: freshness.Event) -> None:
        before, now = self._state, clock.now()
        decided = freshness.step(before, event, now)
        self._state = decided.state
        # 1. What closes or opens traffic, in the machine's order and without a pause.
        for command in decided.commands:
            match command:
                case freshness.Latch(cause):
                    self._causes.latch(cause, now)
                case freshness.Close(reason):
                    self._delivering.close(reason)
                case freshness.Serve(lease):
                    self._serve(lease)
                case _:
                    pass
        # 2. Everything else.
        self._causes.sync()
        for command in decided.commands:
            self._follow_up(command)
        self._tell_phase(before, now)
        if self._state.phase is Phase.ENDED:
            self._end(WorkloadGone("the workload ended", where=f"pid {self._config.workload.pid}"))

    def _serve(self, lease: freshness.Lease) -> None:
        if self._identity is not None:
            self._delivering.serve(self._identity)
            self._timer.arm(lease)

    def _follow_up(self, command: freshness.Command) -> None:
        match command:
            case freshness.Report(generation, violation):
                told = self._causes.named(generation, violation, clock.now())
                self._reports.add(Report(generation, violation.violation_class, violation.text, told.at_ms))
                self._log.warning(
                    Event.VIOLATION,
                    kind=violation.kind,
                    violation_class=violation.violation_class,
                    subject=violation.subject,
                    text=violation.text,
                    rule=violation.rule,
                    mend=violation.mend,
                    at=violation.at,
                )
            case freshness.Reattest(full):
                self._want_round(full=full)
            case freshness.WouldHave(reason):
                self._log.warning(Event.WOULD_HAVE, reason=reason)
            case freshness.Drop(reason):
                self._log.info(Event.RESULT_DROPPED, reason=reason)
            case _:
                pass

    def _tell_phase(self, before: State, now: Now) -> None:
        if (before.phase, before.generation) != (self._state.phase, self._state.generation):
            self._log.info(Event.PHASE, phase=self._state.phase, generation=self._state.generation, at=now.boot)

    # Rounds.

    def _attester(self, pinned: Pinned, enrolled: Enrolled, key: ec.EllipticCurvePrivateKey) -> Attester:
        return Attester(
            self._client,
            enrolled.enrolment,
            pinned.instance,
            pinned.boot_id,
            key,
            self._observations,
            self._standpoint,
            enrolled.sent,
        )

    def _standpoint(self) -> Standpoint:
        governed = self._governing
        return Standpoint(
            self._state.generation,
            governed.epoch,
            0,
            self._coverage,
            governed.layers,
            governed.required,
            governed.policy.spec.freshness,
        )

    async def _attest(self, attester: Attester) -> None:
        while True:
            full = await self._rounds.next()
            try:
                outcome = await attester.round(full=full or not self._state.open or self._full_is_due())
            except (Unavailable, MalformedResult) as error:
                self._again(error)
            except Refused as error:
                await self._refused_round(error)
            else:
                self._retries.succeeded()
                self._appraised(outcome)

    def _appraised(self, outcome: Outcome) -> None:
        self._identity = outcome.identity
        self._step(outcome.event)
        outcome.record.served = clock.now().boot
        if outcome.record.full:
            self._full_at = outcome.record.began
        self._log.info(
            Event.ROUND,
            tier=outcome.event.tier.label,
            generation=outcome.event.generation,
            sequence=outcome.event.sequence,
            full=outcome.record.full,
            reasons=list(outcome.result.reasons),
            **outcome.record.stages(),
        )

    async def _refused_round(self, error: Refused) -> None:
        if error.kind == Kind.POLICY_EPOCH_STALE:
            try:
                self._adopt((await self._client.policy()).document)
            except (Unavailable, MalformedResult) as failed:
                self._again(failed)
            else:
                self._rounds.want(full=True)
        elif error.kind == Kind.INSTANCE_QUARANTINED and self._state.sticky:
            self._log.info(Event.ROUND_FAILED, why=error.sentence)
        else:
            self._again(error)

    def _again(self, error: ProofbeatError) -> None:
        """The lease runs on meanwhile: nobody notices an authority that is away for less than what is left of it."""
        pause = min(self._retries.pause(), self._governing.policy.spec.interval)
        self._log.warning(Event.ROUND_FAILED, why=error.sentence, again_in=round(pause, 2))
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(pause, self._rounds.want)

    def _want_round(self, *, full: bool) -> None:
        """A round now; while a closing is under way, right after it: measuring must not compete with cutting."""
        if self._delivering.closing:
            self._owed_full = full or bool(self._owed_full)
        else:
            self._rounds.want(full=full)

    def _full_is_due(self) -> bool:
        ages = [demand.full_max_age for demand in self._governing.policy.spec.layers.values()]
        return bool(ages) and clock.now().boot - self._full_at > min(ages) / 2

    def _adopt(self, document: str) -> None:
        """A policy document, the first or a newer one. Raises MalformedResult."""
        known = self._governed.epoch if self._governed else 0
        governed = read_governing(document, self._result_key, at_least=known)
        first, self._governed = self._governed is None, governed
        spec, local = governed.policy.spec, self._config.workload
        include = tuple(dict.fromkeys((*spec.files.include, *local.files.include)))
        self._measurer.send(Scope(local.pid, include, spec.files.volatile, local.cgroup, spec.deadman))
        self._deliver_under(spec.deadman, spec.escalate_after)
        self._rounds.every(spec.interval)
        self._step(freshness.RulesChanged(governed.rules))
        if first:
            early, self._early = self._early, []
            for fact in early:
                self._saw(fact)

    # What the authority says unasked.

    def _pushed(self, push: Push) -> None:
        match push:
            case AttestNow():
                # Its nonce is left unused: only one we asked for tells when its lease began at the latest.
                self._rounds.want(full=push.nonce.full)
            case Quarantined(cause):
                if not self._causes.known(cause.id):
                    self._step(freshness.Revoked(self._causes.ordered(cause, clock.now())))
            case Released(order):
                self._released(order)
            case PolicyChanged(document=document):
                try:
                    self._adopt(document)
                except MalformedResult as error:
                    self._log.error(Event.ROUND_FAILED, why=error.sentence)
                else:
                    self._rounds.want(full=True)

    def _released(self, order: str) -> None:
        try:
            generations = self._causes.released(order, self._result_key, self._state)
        except MalformedResult as error:
            self._log.error(Event.RESULT_DROPPED, reason=error.sentence)
        else:
            self._step(freshness.Released(generations))

    def _reported(self, report: Report, how: str) -> None:
        self._log.info(Event.REPORTED, generation=report.generation, how=how)

    # Life signs.

    async def _beat_on(self) -> None:
        """Beats for the guardian and renews what Envoy would drop by itself, as long as time passes as it should."""
        number, awake, slept = 0, clock.now(), _suspended()
        while True:
            deadman = self._governing.policy.spec.deadman
            now, suspended = clock.now(), _suspended()
            if suspended - slept > 0.1:
                self._step(freshness.Stalled("the-machine-slept"))
            elif now.boot - awake.boot > deadman:
                self._step(freshness.Stalled("the-sidecar-stood-still"))
            number, awake, slept = number + 1, now, suspended
            self._step(freshness.Ticked())
            self._measurer.send(Beat(number))
            self._delivering.heartbeat()
            await asyncio.sleep(deadman / BEATS)

    def _wall_clock_set(self) -> None:
        self._step(freshness.Stalled("the-wall-clock-was-set"))

    # Envoy.

    def _deliver_under(self, deadman: float, escalate_after: float) -> None:
        """The way to Envoy under these times. An open identity is handed on by the next round."""
        settings = self._config.delivery
        catalogue = Catalogue(settings, ttl=deadman)
        if self._delivery is None:
            self._delivery = Delivery(
                self._server,
                catalogue,
                poison.make(clock.now().wall),
                clock=lambda: clock.now().boot,
                order=self._measurer.send,
                tell=self._delivered,
                escalate_after=escalate_after,
                silent=settings.before_first_lease == "silent",
            )
            self._delivery.start()
        else:
            self._delivery.retime(catalogue, escalate_after)

    def _admit(self, peer: Peer) -> Refusal | None:
        why = self._key_rules.refusal(peer.pid)
        if why is not None:
            return Refusal(why)
        self._measurer.send(Guard(peer.pid), peer.pidfd)
        self._log.info(Event.ENVOY_ADMITTED, envoy=peer.pid, executable=peer.executable)
        return None

    def _refused(self, peer: Peer | None, refusal: Refusal) -> None:
        """Somebody else asked for the key. The workload asking is tampering; a stranger is drift."""
        self._log.error(Event.ENVOY_REFUSED, reason=refusal.reason)
        if peer is None or peer.uid not in self._client_uids:
            return
        workload = self._key_rules.of_workload(peer.pid)
        self._step(
            freshness.Violated(
                Violation(
                    "key-socket-second-client",
                    ViolationClass.TAMPER if workload else ViolationClass.DRIFT,
                    Layer.ATTESTER,
                    peer.executable or f"pid {peer.pid}",
                    refusal.reason,
                    clock.now().boot,
                    "one Envoy fetches the key",
                    "Stop the other client, or end the first Envoy before its successor starts.",
                )
            )
        )

    def _delivered(self, told: Told) -> None:
        if told.happening in (Happening.CLOSED, Happening.BOUNDED) and self._owed_full is not None:
            owed, self._owed_full = self._owed_full, None
            self._rounds.want(full=owed)
        events = {
            Happening.CLOSED: Event.CLOSED,
            Happening.BOUNDED: Event.CLOSED,
            Happening.OPENED: Event.OPENED,
            Happening.ESCALATED: Event.ESCALATED,
            Happening.REJECTED: Event.ENVOY_REJECTED,
        }
        self._log.info(
            events[told.happening],
            how=told.happening,
            detail=told.detail,
            destroyed=told.destroyed,
            steps=told.steps,
            at=clock.now().boot,
        )

    # Ends.

    def _measurer_lost(self, reason: str) -> None:
        now = clock.now()
        self._log.error(Event.MEASURER_LOST, reason=reason)
        if self._state.phase is not Phase.ENDED:
            self._step(freshness.MeasurerLost(_lost(reason, now)))
        self._end(Unavailable(f"the measurer is lost: {reason}", where="measurer", mend="Start the sidecar again."))

    def _latch_failed(self, reason: str) -> None:
        """The closing is on its way; without a latch this process must not go on to open anything again."""
        self._end(Unavailable(reason, where=str(self._config.state), mend="Make room, or mend the file system."))

    def _end(self, error: ProofbeatError) -> None:
        """Everything ends with this error, once."""
        if not self._pinned.done():
            self._pinned.set_exception(error)
        elif not self._over.done():
            self._over.set_exception(error)

    def _close_for_good(self) -> None:
        if self._state.open:
            self._delivering.close("sidecar-stopped")
        self._delivering.stop()
        self._measurer.stop()
        self._log.info(Event.STOPPED)

    @property
    def _delivering(self) -> Delivery:
        assert self._delivery is not None  # noqa: S101 - made first thing in run()
        return self._delivery

    @property
    def _governing(self) -> Governed:
        assert self._governed is not None  # noqa: S101 - rounds and beats begin after enrolment
        return self._governed


def _authority(config: SidecarConfig) -> AuthorityEndpoint:
    bundle = config.authority.bundle
    try:
        return AuthorityEndpoint(config.authority.url, config.trust_domain, bundle.read_text())
    except OSError as error:
        raise InvalidConfiguration(
            f"the authority's trust bundle cannot be read: {error.strerror}",
            where=str(bundle),
            mend="Copy the authority's bundle.pem there.",
        ) from error


def _lost(reason: str, now: Now) -> Violation:
    return Violation(
        "measurer-lost",
        ViolationClass.DRIFT,
        Layer.ATTESTER,
        "measurer",
        reason,
        now.boot,
        "nobody watches the workload",
        "Start the sidecar again; a full measurement follows.",
    )


def _suspended() -> float:
    """Seconds this machine has slept since boot: what CLOCK_BOOTTIME counts and CLOCK_MONOTONIC does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
