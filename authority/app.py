"""The authority as a program, or inside another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from attestation import jws
from attestation.breakglass import Order
from attestation.digests import Digest
from attestation.errors import Unavailable
from attestation.instance import InstanceId
from authority import calling, keyring
from authority.alerts import Alerts
from authority.api import replies
from authority.api.admin import AdminApi, bound_socket
from authority.api.alerts import AlertsApi
from authority.api.answering import Answering
from authority.api.answers import GlassOrders, OrderState, PolicyFaults, Registered
from authority.api.attest import Posts
from authority.api.challenges import Challenges
from authority.api.session import SessionApi
from authority.asking import Asking
from authority.breakglass import Applied, BreakGlasses
from authority.calling import InstanceCalls
from authority.config import AuthorityConfig
from authority.denials import SKEW_MS
from authority.denying import Denying
from authority.doors import IDLE_SECONDS, Doors, Intake
from authority.enrolment import Enrolments
from authority.expiring import Expiring
from authority.faults import Faults
from authority.holding import Holding
from authority.instances import Instances
from authority.issuer import bundle
from authority.issuer import ca as authorities
from authority.issuer.ca import Ca
from authority.issuer.issuer import Issuer
from authority.latest import Told
from authority.metering import Metering
from authority.nonces import Nonces
from authority.orders import Orders
from authority.reaching import Reaching
from authority.rounds import Rounds
from authority.rules import Draft, Rules, Ruling
from authority.serving import Serving
from authority.sessions import Sessions
from authority.store.records import Enrolled, InstanceState
from authority.store.store import Store
from authority.why import Why
from policies.appraise.rules import prepare
from policies.model import load as policies
from policies.model.signing import Trust, trusted
from telemetry import logs, metrics
from telemetry.exporting import exported
from telemetry.recorder import Recorder
from wire import messages, tls
from wire.messages import AttestNow, BreakGlass, Cause, Denials, PolicyChanged, Quarantined, Standing

_HOUSEKEEPING = 10.0
_LEAST_MEMORY_MS = 60_000
"""Rounds are remembered at least that long after their nonces have gone stale."""
_GRACE = 0.5
"""Seconds that a request under way gets when the authority stops."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where it can be reached. url: https://host:port. bundle: PEM of the root."""

    url: str
    trust_domain: str
    bundle: str
    admin: Path


class Authority:
    """allow_demo: take a CA whose name says that its keys are no secret. clock: Unix seconds.

    The methods besides `run` are for use after `ready` was called.
    """

    def __init__(
        self, config: AuthorityConfig, *, allow_demo: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._clock = clock
        self._ca = _ca(config, allow_demo=allow_demo, now=clock())
        self._store = Store(config.store, clock)
        self._signer = jws.Signer(self._ca.result_key)
        self._sessions = Sessions()
        detectors = config.detectors
        self._serving = Serving(self._ca, config.trust_domain, () if detectors is None else detectors.hosts)
        self._current: Rules | None = None
        self._reloading = asyncio.Lock()
        keys = keyring.opened(config.store.with_suffix(".keys"), now=clock())
        self._instances = Instances(self._store)
        self._nonces = Nonces(self._instances, keys, clock)
        issuer = Issuer(self._ca)
        self._denying = Denying(
            self._store, issuer, lambda: self._rules().registered, self._sessions.announce, clock, logs.logger()
        )
        self._expiring = Expiring(logs.logger())
        self._faults = Faults(logs.logger())
        self._glasses = BreakGlasses(
            self._store, config.trust_domain, self._rules, self._tell_exceptions, clock, logs.logger()
        )
        retire_after = config.history.retire_after
        self._holding = Holding(self._store, self._rules, self._sessions.push, clock, retire_after, logs.logger())
        self._orders = Orders(
            self._store,
            self._instances,
            self._signer,
            clock,
            self._sessions.push,
            self._denying.changed,
            self._glasses,
            self._holding,
        )
        self._recorder = Recorder(metrics.AUTHORITY)
        self._recorder.subject = {"trust_domain": config.trust_domain}
        metering = Metering(self._recorder, self._sessions, self._glasses, self._holding, self._faults)
        self._rounds = Rounds(
            self._store,
            self._instances,
            issuer,
            keys,
            self._nonces,
            clock,
            self._on_quarantine,
            self._denying,
            self._glasses,
            self._holding,
            metering,
        )
        reaching = Reaching(self._store, self._instances, self._denying)
        self._detectors = () if detectors is None else detectors.tokens()
        oldest = 0.0 if detectors is None else detectors.oldest
        self._alerts = Alerts(self._sessions.alert, self._sessions.instances, clock, oldest)
        self._enrolments = Enrolments(self._store, self._instances, self._nonces, self._ca, keys, self._rules, clock)
        self._answering = Answering(
            self._store,
            self._instances,
            self._nonces,
            self._rounds,
            self._orders,
            self._holding,
            self._denying,
            reaching,
            self._alerts,
            self._rules,
        )
        self._challenges = Challenges(keys, clock)
        self._asking = Asking(self._store, self._sessions, self._rules, self._holding, clock, retire_after)

    async def run(self, ready: Callable[[Listening], None]) -> None:
        """Serves until cancelled. Raises InvalidConfiguration and Unavailable when it cannot start."""
        tls.shrink_buffers()
        async with AsyncExitStack() as stack:
            self._store.open()
            stack.callback(self._store.close)
            await self.reload_policies()
            await self._denying.start()
            await self._glasses.start()
            await self._holding.start()
            again = self._serving.renew(self._clock())
            admin = await stack.enter_async_context(_set_up(AdminApi(self).routes(), replies.as_problems))
            await web.SockSite(admin, bound_socket(self._config.admin)).start()
            doors = Doors(self._serving.context)
            asked = (doors.watch, replies.in_version, replies.as_problems)
            public = await stack.enter_async_context(_set_up(self._routes(doors), *asked))
            stack.callback(doors.close)
            stack.callback(self._sessions.end_all)
            await stack.enter_async_context(exported(self._recorder, self._config.telemetry))
            ready(self._listening(*doors.open(*self._config.address)))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._renew(again))
                tasks.create_task(self._keep_house())
                tasks.create_task(self._denying.run())
                tasks.create_task(self._glasses.run())
                tasks.create_task(self._holding.run())
                tasks.create_task(doors.serve(public.server))

    async def create_token(self, registration: str, *, lifetime: float = 3600.0) -> str:
        """A join token. lifetime: seconds. Raises Refused (registration-unknown)."""
        return await self._enrolments.create_token(registration, lifetime)

    async def quarantine(self, instance: InstanceId, cause: str) -> Standing:
        """Durable when it returns. Raises Refused (instance-unknown)."""
        return await self._orders.quarantine(instance, cause)

    async def release(self, instance: InstanceId, causes: tuple[str, ...] | None = None) -> str:
        """The signed order, naming these causes, or all that stand now. Raises Refused (release-void)."""
        return await self._orders.release(instance, causes)

    async def instances(self) -> tuple[InstanceState, ...]:
        """Every instance that ever enrolled, the latest first."""
        return await self._asking.instances()

    async def instance(self, instance: InstanceId) -> InstanceState:
        """One instance. Raises Refused (instance-unknown)."""
        return await self._asking.instance(instance)

    def denials(self) -> Denials:
        """Whom peers are told to refuse now."""
        return self._denying.current

    async def break_glass(self, text: str) -> Applied:
        """As BreakGlasses.apply."""
        return await self._glasses.apply(text)

    async def end_break_glass(self, identity: str, why: str, registrations: Collection[str] = ()) -> Order:
        """As BreakGlasses.end."""
        return await self._glasses.end(identity, why, registrations)

    async def broken(self) -> GlassOrders:
        """Every break-glass order that was applied, and what one can be about."""
        now, rules = self._clock(), self._rules()
        return GlassOrders(
            self._config.trust_domain,
            rules.epoch,
            tuple(Registered(name, identity) for name, identity in rules.identities.items()),
            tuple(OrderState.of(kept, order, now) for kept, order in await self._glasses.every()),
        )

    def faults(self) -> PolicyFaults:
        """What is wrong with documents of single namespaces, and whom it keeps from an identity."""
        return PolicyFaults.of(self._rules().faults)

    async def why(self, asked: str, at: float | None = None) -> Why:
        """As Asking.why."""
        return await self._asking.why(asked, at)

    async def ruling(self, asked: str) -> Ruling:
        """As Asking.ruling."""
        return await self._asking.ruling(asked)

    def evidence(self) -> tuple[Told, ...]:
        """The latest of each instance that has attested since the start."""
        return self._rounds.latest.every()

    def calls(self, instance: InstanceId | None) -> tuple[InstanceCalls, ...]:
        """What this one, or each of them, said last of system calls, as far as it did."""
        latest = self.evidence() if instance is None else (self._rounds.latest.of(instance),)
        found = (calling.told(each, self.body(each.registration, each.call_layer)) for each in latest if each)
        return tuple(each for each in found if each is not None)

    def body(self, registration: str, digest: Digest) -> bytes | None:
        """As Rounds.body."""
        return self._rounds.body(registration, digest)

    async def attest_now(self, instance: InstanceId) -> bool:
        """Asks for a round at once. False when the instance has no session."""
        if instance not in self._sessions.instances():
            return False
        enrolled = await self._instances.get(instance)
        ruling = self._rules().of(enrolled.registration)
        self._sessions.push(instance, AttestNow(self._nonces.issue(enrolled, ruling)))
        return True

    async def reload_policies(self, *, strict: bool = False) -> int:
        """Reads the policies again; returns their epoch, a new one if anything changed, and tells the sessions.

        What is wrong with one namespace's documents is that one's alone (`faults`). Raises InvalidConfiguration for
        what concerns everybody, strict: for anything that is wrong; then what was in force stays so.
        """
        async with self._reloading:
            return await self._reload(strict=strict)

    async def _reload(self, *, strict: bool) -> int:
        # In a thread: to read what an image has of files takes longer than a heartbeat of the sessions.
        draft = await asyncio.to_thread(self._read, await self._store.holders())
        for fault in draft.faults if strict else ():
            raise fault.error
        # Nothing that is written can fail from here on: epoch and rules belong together.
        epoch = await self._store.policy_epoch(draft.digest, int(self._clock() * 1000), draft.identities)
        before, self._current = self._current, draft.signed(epoch, self._signer)
        self._faults.tell(self._current.faults)
        self._expiring.look(self._current.registrations.values(), self._clock())
        if before is not None and before.epoch != epoch:
            await self._announce(self._current)
            self._denying.changed()
            await self._glasses.look()
        return epoch

    def _read(self, holders: Mapping[str, str]) -> Draft:
        config, root = self._config, self._config.root_namespace
        return Draft(policies.in_force(config.policies, root, self._trust(), config.trust_domain, holders, prepare))

    def _trust(self) -> Trust | None:
        """Whom reference values have to be signed by; None where nobody has to."""
        named = self._config.references.trusted_keys
        return None if named is None else trusted(named)

    async def _announce(self, rules: Rules) -> None:
        for instance in self._sessions.instances():
            ruling = rules.registrations.get((await self._instances.get(instance)).registration)
            if ruling is not None:
                self._sessions.push(instance, PolicyChanged(rules.epoch, ruling.document))

    async def _tell_exceptions(self, registrations: Collection[str]) -> None:
        rules = self._rules()
        for instance in self._sessions.instances():
            enrolled = await self._instances.get(instance)
            if enrolled.registration not in registrations:
                continue
            ruling = rules.registrations.get(enrolled.registration)
            if ruling is None:
                self._sessions.push(instance, BreakGlass(()))
                continue
            self._sessions.push(instance, self._glasses.told(enrolled, ruling))
            self._sessions.push(instance, AttestNow(self._nonces.issue(enrolled, ruling)))

    def _rules(self) -> Rules:
        if self._current is None:
            raise Unavailable("the authority is still starting", where="authority")
        return self._current

    def _on_quarantine(self, enrolled: Enrolled, cause: Cause) -> None:
        self._sessions.push(enrolled.instance, Quarantined(cause))
        self._denying.changed()

    def _routes(self, doors: Doors) -> list[web.RouteDef]:
        sessions = SessionApi(
            self._store,
            self._instances,
            self._sessions,
            self._answering,
            self._challenges,
            doors.proven,
            self._glasses.greeting,
        )
        posts = Posts(self._enrolments, self._instances, self._sessions, self._answering, self._bundle, Intake())
        return [*sessions.routes(), *posts.routes(), *self._alert_routes(doors)]

    def _alert_routes(self, doors: Doors) -> list[web.RouteDef]:
        """Only where somebody may post there."""
        if not self._detectors:
            return []
        log = logs.logger()
        return AlertsApi(self._alerts, self._detectors, Intake(), doors.proven, self._recorder, log).routes()

    def _bundle(self) -> bytes:
        made = int(self._ca.root.not_valid_before_utc.timestamp())
        return bundle.document((self._ca.root,), sequence=made)

    def _listening(self, host: str, port: int) -> Listening:
        shown = f"[{host}]" if ":" in host else host
        return Listening(f"https://{shown}:{port}", self._config.trust_domain, self._ca.bundle, self._config.admin)

    async def _renew(self, again: float) -> None:
        while True:
            await asyncio.sleep(again)
            again = self._serving.renew(self._clock())

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            longest_ms = max((each.nonce_valid_ms for each in self._rules().registrations.values()), default=0)
            now_ms = int(self._clock() * 1000)
            await self._store.forget_rounds(now_ms - 2 * longest_ms - _LEAST_MEMORY_MS, over_ms=now_ms - SKEW_MS)
            await self._store.end_leases(now_ms)
            self._denying.aged()
            self._expiring.look(self._rules().registrations.values(), self._clock())
            await self._store.forget_history(now_ms - int(self._config.history.keep * 1000))


def _ca(config: AuthorityConfig, *, allow_demo: bool, now: float) -> Ca:
    folder, name, lifetime = config.ca.folder, config.ca.name, config.ca.lifetime
    if not authorities.exists(folder):
        authorities.generate(folder, name, lifetime, now=authorities.utc(now))
    return authorities.load(folder, allow_demo=allow_demo)


@asynccontextmanager
async def _set_up(routes: list[web.RouteDef], *middlewares: Middleware) -> AsyncIterator[web.AppRunner]:
    application = web.Application(middlewares=middlewares, client_max_size=messages.MOST_FRAME)
    application.add_routes(routes)
    runner = web.AppRunner(
        application,
        access_log=None,
        shutdown_timeout=_GRACE,
        keepalive_timeout=IDLE_SECONDS,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()
