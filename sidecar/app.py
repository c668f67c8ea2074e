"""The sidecar put together: one event loop, one state, one line from a fact to Envoy's socket.

hearing.py begins that line: the measurer's datagram is judged (judging.py), decided and carried out (machine.py) before
anything else of this process runs. Rounds, reports and logs come after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.channel import Beat, Bundled, Measure, Pinned, Scope
from attestation.coverage import Coverage
from attestation.errors import InvalidConfiguration
from attestation.facts import AlertFact, CollectorFact
from attestation.jws import Signer
from attestation.layers import Layer
from attestation.observation import Observation
from attestation.proxy import Delivered
from attestation.violation import Violation
from policies.appraise.breakglass import Ground, subject_of
from policies.appraise.detectors import alerted
from policies.model import dialect
from policies.model.breakglass import BreakGlassRules
from policies.model.policy import Mode, PolicySpec
from sidecar import answers, clock, states
from sidecar.asking import Asking
from sidecar.attester import Attester, HeldNonce, Outcome, Standpoint
from sidecar.causes import Causes
from sidecar.clock import LeaseTimer
from sidecar.config import SidecarConfig
from sidecar.containing import Containing
from sidecar.delivery.resources import Identity
from sidecar.detectors.announcing import Notes, placed
from sidecar.detectors.detectors import Detectors
from sidecar.ends import Ends
from sidecar.envoy import Envoy
from sidecar.forensics import Forensics, Known
from sidecar.gating import Gating
from sidecar.governing import Governed, read_governing
from sidecar.hearing import Hearing, Parts
from sidecar.heartbeat import Heartbeat
from sidecar.judging import Judging
from sidecar.latch import Latch
from sidecar.listeners import Listeners
from sidecar.losing import Losing
from sidecar.machine import Machine
from sidecar.measurement import Measurer, Spawned
from sidecar.membership import Enrolled, enrol
from sidecar.metering import Metering
from sidecar.observations import Observations
from sidecar.ownenvoy import Launch
from sidecar.placement import Placement, hold
from sidecar.proxy import ProxyLayer
from sidecar.pushes import Pushes
from sidecar.reachable import announce
from sidecar.refusing import Refusing
from sidecar.reports import Reports, report_of
from sidecar.restored import PacedClient, Restores
from sidecar.rounds import RoundLoop
from sidecar.standing import StateFolder
from sidecar.states import State
from sidecar.telling import Telling
from sidecar.waivers import Waivers
from telemetry import metrics
from telemetry.exporting import exported
from telemetry.recorder import Recorder
from wire.messages import Quarantined
from wire.session import Endpoint as AuthorityEndpoint
from wire.versions import DETECTORS


class Sidecar:
    """One workload's attester and Envoy's source of identity. Made inside a running loop.

    log: a structured logger. spawned: a measurer started beforehand; else one is started here. launch: how Envoy is
    run, where that is ours to do. listeners: of seccomp filters that the workload was started under; ours from here on.
    """

    def __init__(
        self,
        config: SidecarConfig,
        log: Any,
        spawned: Spawned | None = None,
        launch: Launch | None = None,
        listeners: Sequence[int] = (),
    ) -> None:
        self._config = config
        self._placement = Placement(
            config.measurer, spawned, came_back=self._measurer_back, failed=lambda error: self._telling.uncalled(error)
        )
        self._workload = -1
        self._recorder = Recorder(metrics.SIDECAR)
        self._metering = Metering(self._recorder)
        self._telling = Telling(log, self._metering)
        self._identity: Identity | None = None
        self._folder = StateFolder(config.state)
        self._ends = Ends(config.workload.pid, config.state)
        self._causes = Causes(Latch(config.state), self._ends.latch_failed)
        self._measurer = Measurer(
            lambda message, body: self._hearing.heard(message, body), lambda reason: self._losing.lost(reason)
        )
        self._observations = Observations(self._measurer.send)
        self._rounds = RoundLoop(self, self._telling)
        self._machine = Machine(
            self._causes,
            self._telling,
            close=self._close,
            serve=self._serve,
            ask=lambda question: self._asking.ask(question),
            report=lambda report: self._reports.add(self._containing.worded(report)),
            reattest=lambda full: self._rounds.want(full=full),
            contain=lambda before, after: self._containing.follow(before, after),
            ended=self._ends.workload_ended,
        )
        self._containing = Containing(
            config.state,
            config.forensics,
            self._telling,
            order=self._measurer.send,
            keep=self._keep_bundle,
            now=clock.now,
        )
        self._forensics = Forensics(
            config.state, config.forensics, kept=self._telling.bundle_kept, failed=self._telling.bundle_failed
        )
        self._gating = Gating(self._measurer.send)
        self._listeners = Listeners(listeners, self._measurer.send)
        self._signer: Signer | None = None
        self._judging = Judging(
            violated=self._violated,
            harmless=self.maybe_mended,
            undecided=self._undecided,
            too_many=self._ends.overrun,
        )
        self._detectors = Detectors(
            config,
            self._telling,
            order=self._measurer.send,
            saw=self._detected,
            told=self._note_if_observed,
        )
        self._timer = LeaseTimer(
            on_end=lambda: self._machine.step(states.Ticked()),
            on_set=lambda: self._stalled("the-wall-clock-was-set"),
        )
        self._pushes = Pushes(
            self._causes,
            self._rounds,
            self._telling,
            state=lambda: self.state,
            step=self._machine.step,
            adopt=self._adopt,
            denied=lambda told: self._refusing.told(told),
            break_glass=lambda orders: self._waivers.told(orders, final=True),
            alerted=self._detectors.passed_on,
            key=lambda: self._membership.result_key,
        )
        self._waivers = Waivers(
            config.state,
            _operators(config),
            ground=self._ground,
            now=clock.now,
            step=self._machine.step,
            refused=self._telling.push_failed,
        )
        self._client = PacedClient(_authority(config), self._pushes.pushed, left_behind=self._stalled)
        self._asking = Asking(self._client, self._machine.step)
        self._restores = Restores(self._stalled)
        self._reports = Reports(self._client, self._telling.reported)
        self._notes = Notes(self._client)
        self._heartbeat = Heartbeat(
            lambda: self.spec.deadman, self._beat, self._stalled, lambda reason: self._losing.lost(reason)
        )
        self._proxy = ProxyLayer(
            Delivered(config.delivery.mode),
            clock=lambda: clock.now().boot,
            patience=lambda: self._ruled.deadman if self._ruled is not None else inf,
            saw=self._judging.saw,
            observed=self._observed_proxy,
        )
        self._envoy = Envoy(
            config.delivery,
            config.workload,
            self._telling,
            order=self._measurer.send,
            asked=self._violated,
            closed=self._rounds.closing_over,
            proxy=self._proxy,
            launch=launch,
        )
        self._refusing = Refusing(
            ask=self._client.denials,
            serve=self._envoy.refuse,
            membership=lambda: self._membership,
            tell=self._telling.denied,
        )
        self._losing = Losing(
            self._placement,
            self._measurer,
            self._machine,
            self._ends,
            self._telling,
            ruled=lambda: self._ruled,
            now=clock.now,
            forget=self._forget_measurer,
            abandoned=self._envoy.abandoned,
        )
        self._hearing = Hearing(
            self,
            Parts(
                self._judging,
                self._observations,
                self._proxy,
                self._envoy,
                self._containing,
                self._detectors,
                self._heartbeat,
                self._machine,
                self._placement,
                self._losing,
                self._ends,
                self._telling,
            ),
        )
        self._metering.watch(lambda: self.state, self._observations, self._envoy.server)

    async def run(self, ready: Callable[[], None]) -> None:
        """Until the workload ends, the measurer is lost or the task is cancelled; closed in every case.

        Raises WorkloadGone, InvalidConfiguration, Refused (enrolment), Unavailable (the measurer).
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._ends.broke)
        unclean = self._folder.enter()
        # Nothing waits between these and the measurer's start: whoever takes the seat has to be told to it.
        async with exported(self._recorder, self._config.telemetry), self._envoy.listening():
            self._measurer.start(loop, self._placement.begin())
            self._timer.start(loop)
            self._restores.start(loop)
            try:
                with self._rounds:
                    await self._attest_until_over(unclean, ready)
            finally:
                self._detectors.close()
                self._close_for_good()
                await self._forensics.settled()
                self._timer.close(loop)
                self._restores.close(loop)
                await self._client.close()
        self._folder.leave()

    async def _attest_until_over(self, unclean: bool, ready: Callable[[], None]) -> None:
        # 1. Pin the workload: an instance, or an end.
        local = self._config.workload
        self._workload = hold(local.pid)
        self._measurer.send(Scope(local.pid, local.files.include, cgroup=local.cgroup), self._workload)
        self._listeners.hand_over()
        pinned = await self._ends.until_pinned()
        self._telling.started(pinned, self._measurer.pid)
        # 2. What an earlier run latched for it stays latched.
        self._machine.recall(pinned.instance)
        self._containing.recall(pinned.instance)
        self._waivers.open()
        # 3. Membership: an identity to ask for, and the policy that rules it.
        evidence_key = ec.generate_private_key(ec.SECP256R1())
        self._signer = Signer(evidence_key)
        enrolled = await enrol(
            self._client,
            self._folder,
            self._config.enrolment.join_token_file,
            pinned.instance,
            evidence_key,
            unclean=unclean,
            waiting=self._telling.enrolment_waits,
        )
        self._membership = answers.member(enrolled.enrolment, self._config.trust_domain)
        self._adopt(enrolled.enrolment.policy)
        self._telling.enrolled(enrolled.enrolment)
        standing = enrolled.enrolment.standing.causes
        for sticky, at_ms in self._causes.untold(self.state, {cause.id for cause in standing}):
            self._reports.add(report_of(sticky.generation, sticky.violation, at_ms))
        for cause in standing:
            self._pushes.pushed(Quarantined(cause))
        # 4. Rounds, until something ends them.
        attester = self._attester(pinned, enrolled, evidence_key)
        self._detectors.start(asyncio.get_running_loop())
        ready()
        self._rounds.want(full=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._client.hold(), name="session")
            tasks.create_task(self._asking.run(), name="asking")
            tasks.create_task(self._reports.run(), name="reports")
            tasks.create_task(self._notes.run(), name="notes")
            tasks.create_task(placed(self._client, self._detectors.where), name="whereabouts")
            tasks.create_task(self._heartbeat.run(), name="heartbeat")
            tasks.create_task(self._placement.run(), name="measurer")
            self._envoy.look_after(tasks)
            reached = announce(self._client, self._config.delivery.addresses, self._telling.addresses_refused)
            tasks.create_task(reached, name="addresses")
            tasks.create_task(self._rounds.run(attester), name="rounds")
            await self._ends.until_over()

    # The line from a fact to Envoy.

    def inspected(self) -> None:
        if self.state.open:
            self._hand_over()

    def vouched(self) -> None:
        """Of an Envoy that policy has attested, the measurer is asked at once."""
        governed = self._judging.governed
        if governed is not None and Layer.PROXY in governed.layers:
            self._measurer.send(Measure((Layer.PROXY,), clock.now().boot))
        if self.state.open:
            self._hand_over()

    def _observed_proxy(self, observation: Observation, body: bytes) -> None:
        """Another Envoy than before, or another state of it, is attested without waiting for the next round."""
        if self._observations.observed(observation, body):
            self._rounds.want(full=not self.state.open)

    def _violated(self, violation: Violation) -> None:
        self._machine.step(states.Violated(violation))

    def _detected(self, fact: AlertFact | CollectorFact) -> None:
        self._hearing.facts.append(fact)
        self._judging.saw(fact)

    def _note_if_observed(self, fact: AlertFact) -> None:
        """What closes is reported; what does not, about this very workload, is told for whoever asks why."""
        governed = self._judging.governed
        if governed is not None and fact.named and alerted(fact, governed.policy) is None:
            self._notes.add(fact.alert)

    def _forget_measurer(self) -> None:
        self._hearing.forget()
        self._detectors.forget()

    def _keep_bundle(self, cause: Violation, told: Bundled, body: bytes | None) -> None:
        signer, governed = self._signer, self._judging.governed
        if signer is None or governed is None:
            return  # nothing is judged before there are both
        known = Known(
            self._ends.pinned.instance,
            str(self._membership.spiffe_id),
            governed.epoch,
            self.state.phase,
            self.state.generation,
            self._containing.how,
            self.state.causes,
            self._hearing.coverage,
            tuple(self._hearing.facts),
        )
        self._forensics.keep(cause, told, body, known, signer)

    def maybe_mended(self) -> None:
        """While closed, or held, any harmless change may be the repair."""
        if not self.state.open:
            self._rounds.want(full=True)
        elif self.state.held:
            self._rounds.soon()

    def _undecided(self) -> None:
        if self.state.open:
            self._rounds.soon()

    def _close(self, reason: str, cause: Violation | None) -> None:
        self._envoy.close(reason, cause, self._ruled)

    def _serve(self, lease: states.Lease) -> None:
        if self._identity is not None:
            self._timer.arm(lease)
            self._hand_over()

    def _hand_over(self) -> None:
        """Where policy asks for it, only to an Envoy that an appraisal affirmed."""
        attested = self._proxy.stands_affirmed or not self._governing.proxy_first
        if self._identity is not None and attested:
            # What does not enforce closes nothing, at the end of a lease either.
            enforced = self.state.lease if self.state.rules.mode is Mode.ENFORCE else None
            self._envoy.serve(self._identity, enforced)

    # What rounds need, and what they bring.

    @property
    def state(self) -> State:
        return self._machine.state

    @property
    def closing(self) -> bool:
        return self._envoy.closing

    @property
    def spec(self) -> PolicySpec:
        return self._governing.policy.spec

    def appraised(self, outcome: Outcome) -> None:
        self._identity = outcome.identity
        body = outcome.measured.body(Layer.PROXY)
        # What is held is never about Envoy.
        excepted = outcome.event.waived or outcome.event.held
        if body is not None and (self.spec.opens(outcome.event.tier) or excepted):
            self._proxy.affirmed(body)
        self._machine.step(outcome.event)

    async def fetch_policy(self) -> None:
        self._adopt((await self._client.policy()).document)

    def _attester(self, pinned: Pinned, enrolled: Enrolled, key: ec.EllipticCurvePrivateKey) -> Attester:
        return Attester(
            self._client,
            self._membership,
            HeldNonce(enrolled.enrolment.nonce, enrolled.sent),
            pinned.instance,
            pinned.boot_id,
            key,
            self._observations,
            self._standpoint,
            self._envoy.serves,
            self._refusing.caught_up,
            lambda orders: self._waivers.told(orders, final=False),
            self._waivers.knows,
        )

    def _ground(self) -> Ground:
        governed, trust_domain = self._governing, self._membership.spiffe_id.trust_domain
        subject = subject_of(governed.registration, self._ends.pinned.instance)
        return Ground(trust_domain, governed.epoch, subject, governed.policy)

    def _standpoint(self) -> Standpoint:
        governed = self._governing
        return Standpoint(
            self.state.generation,
            governed.epoch,
            self._envoy.refuses,
            self._coverage,
            governed.told(self._client.version),
            governed.required,
            governed.policy.spec.freshness,
            governed.policy.spec.mode,
        )

    @property
    def _coverage(self) -> Coverage:
        """As the authority can read it."""
        told = self._hearing.coverage
        return self._detectors.covered(told) if self._client.version.minor >= DETECTORS else told

    def _adopt(self, document: str) -> None:
        """A policy document, the first or a newer one. Raises MalformedResult."""
        member = self._membership
        before = self._judging.governed
        governed = read_governing(document, member.result_key, member.spiffe_id, before)
        self._judging.rule(governed)
        spec = governed.policy.spec
        if before is not None:
            self._heartbeat.hasten()
        self._measurer.send(self._scope)
        self._gating.rule(governed)
        self._envoy.rule(spec)
        self._rounds.every(spec.interval)
        self._containing.rule(spec.containment)
        self._detectors.rule(spec)
        self._machine.step(states.RulesChanged(governed.rules))
        self._waivers.weigh()
        self._judging.catch_up()

    @property
    def _scope(self) -> Scope:
        return self._governing.scope(self._config.workload, self._client.version)

    # Life signs.

    def _beat(self, number: int) -> None:
        """For the guardian, and to renew what Envoy would drop by itself."""
        self._restores.look()
        self._proxy.look()
        self._waivers.weigh()
        self._detectors.look(is_open=self.state.open)
        self._machine.step(states.Ticked())
        self._measurer.send(Beat(number))
        self._envoy.heartbeat()

    def _stalled(self, reason: str) -> None:
        self._envoy.stalled(reason)
        self._machine.step(states.Stalled(reason))

    # Ends.

    def _measurer_back(self, spawned: Spawned) -> None:
        """It knows nothing: it is told whom to measure and whom to guard, and everything is measured in full."""
        self._measurer.start(asyncio.get_running_loop(), spawned)
        self._heartbeat.answered()
        self._detectors.forget()
        self._measurer.send(self._scope, self._workload)
        self._listeners.hand_over()
        self._envoy.guard_again()
        self._gating.repeat()
        self._containing.repeat()
        self._telling.measurer_back(spawned.pid)
        self._rounds.want(full=True)

    def _close_for_good(self) -> None:
        self._envoy.close_for_good(is_open=self.state.open)
        self._measurer.stop()
        self._listeners.close()
        self._telling.stopped()

    @property
    def _governing(self) -> Governed:
        governed = self._judging.governed
        assert governed is not None  # noqa: S101 - rounds and beats begin after enrolment
        return governed

    @property
    def _ruled(self) -> PolicySpec | None:
        """None before enrolment."""
        governed = self._judging.governed
        return governed.policy.spec if governed is not None else None


def _authority(config: SidecarConfig) -> AuthorityEndpoint:
    bundle = config.authority.bundle
    try:
        return AuthorityEndpoint(config.authority.url, config.trust_domain, bundle.read_text())
    except OSError as error:
        raise InvalidConfiguration(
            f"the authority's trust bundle cannot be read: {error.strerror}",
            where=str(bundle),
            mend="Copy the root.pem of the authority's `ca.folder` there.",
        ) from error


def _operators(config: SidecarConfig) -> BreakGlassRules | None:
    return dialect.read(config.operators, BreakGlassRules) if config.operators is not None else None
