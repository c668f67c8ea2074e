"""The sidecar put together: one event loop, one state, one line from a fact to Envoy's socket.

`_heard` begins that line: the measurer's datagram is judged (judging.py), decided and carried out (machine.py) before
anything else of this process runs. Rounds, reports and logs come after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.channel import (
    Beat,
    Bundled,
    Contained,
    Covered,
    Fault,
    Guarded,
    Inspected,
    Measure,
    Message,
    Observed,
    Pinned,
    Scope,
    Severed,
    Swept,
)
from attestation.coverage import Coverage
from attestation.errors import InvalidConfiguration, ProofbeatError, Unavailable, WorkloadGone
from attestation.facts import (
    CollectorFact,
    ExecutionFact,
    Fact,
    FileFact,
    InstanceFact,
    MemoryFact,
    MountFact,
    ProcessFact,
)
from attestation.jws import Signer
from attestation.layers import Layer
from attestation.observation import Observation
from attestation.proxy import Delivered
from attestation.signals import Signal
from attestation.violation import Violation
from policies.appraise.breakglass import Ground, subject_of
from policies.model import dialect
from policies.model.breakglass import BreakGlassRules
from policies.model.classes import unread
from policies.model.policy import Demand, Mode, PolicySpec
from sidecar import answers, clock, states
from sidecar.asking import Asking
from sidecar.attester import Attester, HeldNonce, Outcome, Standpoint
from sidecar.causes import Causes
from sidecar.clock import LeaseTimer
from sidecar.config import SidecarConfig
from sidecar.containing import Containing
from sidecar.delivery.resources import Identity
from sidecar.envoy import Envoy
from sidecar.forensics import Forensics, Known
from sidecar.governing import Governed, read_governing
from sidecar.heartbeat import Heartbeat
from sidecar.judging import Judging
from sidecar.latch import Latch
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
from sidecar.states import Now, Phase, State
from sidecar.telling import Telling
from sidecar.waivers import Waivers
from telemetry import metrics
from telemetry.exporting import exported
from telemetry.recorder import Recorder
from wire.messages import Quarantined
from wire.session import Endpoint as AuthorityEndpoint
from wire.versions import FILE_CAPABILITIES

_MOST_FACTS = 512
"""The latest, for a forensic bundle."""


class Sidecar:
    """One workload's attester and Envoy's source of identity. Made inside a running loop.

    log: a structured logger. spawned: a measurer started beforehand; else one is started here. launch: how Envoy is
    run, where that is ours to do.
    """

    def __init__(
        self, config: SidecarConfig, log: Any, spawned: Spawned | None = None, launch: Launch | None = None
    ) -> None:
        self._config = config
        self._placement = Placement(
            config.measurer, spawned, came_back=self._measurer_back, failed=lambda error: self._telling.uncalled(error)
        )
        self._workload = -1
        self._recorder = Recorder(metrics.SIDECAR)
        self._metering = Metering(self._recorder)
        self._telling = Telling(log, self._metering)
        self._coverage = Coverage()
        self._identity: Identity | None = None
        self._folder = StateFolder(config.state)
        self._causes = Causes(Latch(config.state), self._latch_failed)
        self._pinned: asyncio.Future[Pinned] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measurer = Measurer(self._heard, self._measurer_lost)
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
            ended=self._workload_ended,
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
        self._facts: deque[Fact] = deque(maxlen=_MOST_FACTS)
        self._signer: Signer | None = None
        self._judging = Judging(
            violated=self._violated,
            harmless=self._maybe_mended,
            undecided=self._undecided,
            too_many=self._overrun,
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
        self._heartbeat = Heartbeat(lambda: self.spec.deadman, self._beat, self._stalled, self._measurer_lost)
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
        self._metering.watch(lambda: self.state, self._observations, self._envoy.server)

    async def run(self, ready: Callable[[], None]) -> None:
        """Until the workload ends, the measurer is lost or the task is cancelled; closed in every case.

        Raises WorkloadGone, InvalidConfiguration, Refused (enrolment), Unavailable (the measurer).
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._broke)
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
        pinned = await self._pinned
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
        ready()
        self._rounds.want(full=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._client.hold(), name="session")
            tasks.create_task(self._asking.run(), name="asking")
            tasks.create_task(self._reports.run(), name="reports")
            tasks.create_task(self._heartbeat.run(), name="heartbeat")
            tasks.create_task(self._placement.run(), name="measurer")
            self._envoy.look_after(tasks)
            reached = announce(self._client, self._config.delivery.addresses, self._telling.addresses_refused)
            tasks.create_task(reached, name="addresses")
            tasks.create_task(self._rounds.run(attester), name="rounds")
            await self._over

    # The line from a fact to Envoy.

    def _heard(self, message: Message, body: bytes | None) -> None:
        match message:
            case FileFact() | MountFact() | ExecutionFact() | ProcessFact() | CollectorFact() | MemoryFact():
                self._facts.append(message)
                self._judging.saw(message)
            case Observed(observation):
                changed = self._observations.observed(observation, body)
                if changed:
                    self._maybe_mended()
            case Inspected():
                if self._proxy.inspected(message) and self.state.open:
                    self._hand_over()
            case Swept():
                self._envoy.swept(message)
            case Severed():
                self._envoy.severed(message)
            case Guarded():
                self._envoy.vouched(message)
                governed = self._judging.governed
                if governed is not None and Layer.PROXY in governed.layers:
                    self._measurer.send(Measure((Layer.PROXY,), clock.now().boot))
                if self.state.open:
                    self._hand_over()
            case Contained():
                self._containing.contained(message)
            case Bundled():
                self._containing.bundled(message, body)
            case Beat():
                self._heartbeat.answered()
            case InstanceFact():
                self._machine.step(states.WorkloadEnded("workload-ended"))
            case Covered(coverage, tried):
                self._coverage = coverage
                self._telling.covered(coverage, tried)
            case Pinned():
                if not self._pinned.done():
                    self._pinned.set_result(message)
                elif message.instance != self._pinned.result().instance:
                    self._workload_ended()
                else:
                    self._placement.settled()
            case Fault(what, where, mend):
                self._measurer_failed(Unavailable(what, where=where or "measurer", mend=mend))
            case _:
                self._measurer_lost(f"it sent a {type(message).__name__}, which is ours to send")

    def _observed_proxy(self, observation: Observation, body: bytes) -> None:
        """Another Envoy than before, or another state of it, is attested without waiting for the next round."""
        if self._observations.observed(observation, body):
            self._rounds.want(full=not self.state.open)

    def _violated(self, violation: Violation) -> None:
        self._machine.step(states.Violated(violation))

    def _keep_bundle(self, cause: Violation, told: Bundled, body: bytes | None) -> None:
        signer, governed = self._signer, self._judging.governed
        if signer is None or governed is None:
            return  # nothing is judged before there are both
        known = Known(
            self._pinned.result().instance,
            str(self._membership.spiffe_id),
            governed.epoch,
            self.state.phase,
            self.state.generation,
            self._containing.how,
            self.state.causes,
            self._coverage,
            tuple(self._facts),
        )
        self._forensics.keep(cause, told, body, known, signer)

    def _maybe_mended(self) -> None:
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
        subject = subject_of(governed.registration, self._pinned.result().instance)
        return Ground(trust_domain, governed.epoch, subject, governed.policy)

    def _standpoint(self) -> Standpoint:
        governed = self._governing
        return Standpoint(
            self.state.generation,
            governed.epoch,
            self._envoy.refuses,
            self._coverage,
            governed.layers,
            governed.required,
            governed.policy.spec.freshness,
            governed.policy.spec.mode,
        )

    def _adopt(self, document: str) -> None:
        """A policy document, the first or a newer one. Raises MalformedResult."""
        member = self._membership
        before = self._judging.governed
        governed = read_governing(document, member.result_key, member.spiffe_id, before)
        self._judging.rule(governed)
        spec = governed.policy.spec
        if before is not None:
            self._heartbeat.hasten()
        self._measurer.send(self._scope(spec))
        self._envoy.rule(spec)
        self._rounds.every(spec.interval)
        self._containing.rule(spec.containment)
        self._machine.step(states.RulesChanged(governed.rules))
        self._waivers.weigh()
        self._judging.catch_up()

    def _scope(self, spec: PolicySpec) -> Scope:
        local = self._config.workload
        include = tuple(dict.fromkeys((*spec.files.include, *local.files.include)))
        return Scope(
            local.pid,
            include,
            unread(spec.files),
            local.cgroup,
            spec.deadman,
            immutable=spec.files.immutable,
            reread=spec.files.reread,
            capabilities=self._client.version.minor >= FILE_CAPABILITIES,
            memory=0.0 if spec.demand(Layer.MEMORY) is Demand.OFF else spec.memory.period,
        )

    # Life signs.

    def _beat(self, number: int) -> None:
        """For the guardian, and to renew what Envoy would drop by itself."""
        self._restores.look()
        self._proxy.look()
        self._waivers.weigh()
        self._machine.step(states.Ticked())
        self._measurer.send(Beat(number))
        self._envoy.heartbeat()

    def _stalled(self, reason: str) -> None:
        self._envoy.stalled(reason)
        self._machine.step(states.Stalled(reason))

    # Ends.

    def _workload_ended(self) -> None:
        self._end(WorkloadGone("the workload ended", where=f"pid {self._config.workload.pid}"))

    def _overrun(self) -> None:
        self._end(Unavailable("more facts than can be kept before enrolment", where="measurer"))

    def _measurer_failed(self, error: Unavailable) -> None:
        """Its last word. What it says of one connection may be mended for the next."""
        if self._placement.comes_back and self._pinned.done():
            self._measurer_lost(error.sentence)
        else:
            self._end(error)

    def _measurer_lost(self, reason: str) -> None:
        """Closed. The node's is looked for again; ours ended, and what is left of it ends with us."""
        if self._placement.looks:
            return
        self._measurer.hang_up()
        self._coverage = Coverage()
        now = clock.now()
        self._telling.measurer_lost(reason)
        if self.state.phase is not Phase.ENDED:
            self._machine.step(states.MeasurerLost(_lost(reason, self._ruled, now)))
            self._envoy.abandoned(reason)
        if self._placement.comes_back and self._pinned.done():
            self._placement.lost()
        else:
            self._end(Unavailable(f"the measurer is lost: {reason}", where="measurer", mend="Start the sidecar again."))

    def _measurer_back(self, spawned: Spawned) -> None:
        """It knows nothing: it is told whom to measure and whom to guard, and everything is measured in full."""
        self._measurer.start(asyncio.get_running_loop(), spawned)
        self._heartbeat.answered()
        self._measurer.send(self._scope(self.spec), self._workload)
        self._envoy.guard_again()
        self._containing.repeat()
        self._telling.measurer_back(spawned.pid)
        self._rounds.want(full=True)

    def _latch_failed(self, reason: str) -> None:
        """The closing is on its way; without a latch this process must not go on to open anything again."""
        self._end(Unavailable(reason, where=str(self._config.state), mend="Make room, or mend the file system."))

    def _broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback that fails half-way may have been a closing: nothing goes on after it, and the guardian closes."""
        loop.default_exception_handler(context)
        if "handle" in context:
            error = context.get("exception")
            self._end(Unavailable(f"a callback failed: {error}", where="sidecar", mend="Start the sidecar again."))

    def _end(self, error: ProofbeatError) -> None:
        """Everything ends with this error, once."""
        if not self._pinned.done():
            self._pinned.set_exception(error)
        elif not self._over.done():
            self._over.set_exception(error)

    def _close_for_good(self) -> None:
        self._envoy.close_for_good(is_open=self.state.open)
        self._measurer.stop()
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


def _lost(reason: str, ruled: PolicySpec | None, now: Now) -> Violation:
    kind = Signal.MEASURER_LOST
    return Violation(
        kind,
        kind.default if ruled is None else ruled.violation_class(kind),
        Layer.ATTESTER,
        "measurer",
        reason,
        now.boot,
        "nobody watches the workload",
        "Start the sidecar again; a full measurement follows.",
    )
