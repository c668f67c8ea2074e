"""Envoy, as the sidecar has it: its bootstrap, the socket of its key, what it is delivered, and its process if ours."""

from __future__ import annotations

from asyncio import TaskGroup
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attestation.channel import Guard, Guarded, Message, Severed, Swept
from attestation.errors import InvalidConfiguration
from attestation.violation import Violation
from policies.model.policy import PolicySpec
from sidecar import clock
from sidecar.config import DeliverySettings, WorkloadSettings
from sidecar.delivery import poison
from sidecar.delivery.delivery import Delivery
from sidecar.delivery.lifetime import drains_for
from sidecar.delivery.resources import Catalogue, Identity
from sidecar.delivery.severing import Severing
from sidecar.delivery.told import Happening, Told
from sidecar.denials import Refusals, addresses_of, nobody
from sidecar.keysocket import KeySocket
from sidecar.ownenvoy import Launch, OwnEnvoy
from sidecar.peers import Peers
from sidecar.proxy import ProxyLayer
from sidecar.serving import Serving
from sidecar.states import Lease
from sidecar.telling import Telling
from xds.acks import Verdict
from xds.bootstrap import delivered_bootstrap, write_bootstrap
from xds.errors import SocketInUse, SocketUnusable
from xds.peer import Peer
from xds.resources.transport import SecretNames
from xds.server import Server

_UNTIL_ENROLLED = PolicySpec()
"""Only its times count, and only until the authority's policy is known: nothing is open before."""


class Envoy:
    """One workload's Envoy. Everything here is synchronous but its beginning, its end and its tasks.

    order: hands a message, and a descriptor with it, to the measurer, at once. asked: called when somebody else
    wanted the key. closed: called when a closing is over. proxy: told who sits there, and what it answers. launch:
    how Envoy is run, where that is ours to do: one that is delivered everything.
    """

    def __init__(
        self,
        settings: DeliverySettings,
        workload: WorkloadSettings,
        telling: Telling,
        *,
        order: Callable[[Message, int | None], None],
        asked: Callable[[Violation], None],
        closed: Callable[[], None],
        proxy: ProxyLayer,
        launch: Launch | None = None,
    ) -> None:
        self._settings = settings
        self._telling = telling
        self._order = order
        self._closed = closed
        self._proxy = proxy
        self._own = _own(settings, launch, telling)
        own = self._own.is_it if self._own is not None else None
        self._keys = KeySocket(
            settings, workload, telling, admitted=self._guard, asked=asked, answered=self._answered, own=own
        )
        self._keys.server.callers.on_connected = self._connected
        service = settings.service
        self._described = service.described(SecretNames()) if service is not None else None
        self._peers = Peers.of(settings.peers)
        self._deadman = _UNTIL_ENROLLED.deadman
        self._refusals = nobody()
        self._serving = Serving(settings.certificate, service.admin if service is not None else None)
        self._severing = Severing(lambda message: order(message, None), telling.severed)
        self._delivery = Delivery(
            self._keys.server,
            self._catalogue,
            poison.make(clock.now().wall),
            clock=clock.now,
            order=lambda message: order(message, None),
            tell=self._happened,
            refuses=self._refuses,
            sever=self._sever,
            escalate_after=_UNTIL_ENROLLED.escalate_after,
            silent=settings.before_first_lease == "silent",
            admin=service.admin if service is not None else None,
        )

    @property
    def server(self) -> Server:
        return self._keys.server

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Its key can be fetched. Raises InvalidConfiguration."""
        self._write_bootstrap()
        try:
            await self.server.start()
        except (SocketInUse, SocketUnusable) as error:
            raise InvalidConfiguration(str(error), where="delivery.socket") from error
        try:
            self._delivery.start()
            yield
        finally:
            await self.server.close()

    def look_after(self, tasks: TaskGroup) -> None:
        """What goes on beside: the socket's file, and Envoy's process where it is ours."""
        tasks.create_task(self.server.keep_listening(self._telling.key_socket_lost), name="key socket")
        if self._own is not None:
            tasks.create_task(self._own.run(), name="envoy")

    async def serves(self) -> int | None:
        """Serial number of the certificate that it serves (sidecar/serving.py); None where it serves none."""
        envoy = self.server.client
        return await self._serving.stated(envoy.pid) if envoy is not None else None

    # What is decided elsewhere and carried out here.

    def rule(self, spec: PolicySpec) -> None:
        """These times from now on. An open identity is handed on by the next heartbeat."""
        self._deadman = spec.deadman
        self._delivery.retime(self._catalogue, spec.escalate_after)

    def refuse(self, refusals: Refusals) -> None:
        """These peers from now on, and at once where it is open; what is open to others goes on."""
        self._refusals = refusals
        self._delivery.refuse(self._catalogue)

    @property
    def _catalogue(self) -> Catalogue:
        return Catalogue.under(self._settings, ttl=self._deadman, refusals=self._refusals)

    def serve(self, identity: Identity, lease: Lease | None) -> None:
        """Not before the measurer has vouched for whoever sits there. lease: None where policy does not enforce it."""
        if not self._keys.unvouched:
            self._delivery.serve(identity, lease)

    def close(self, reason: str, cause: Violation | None, spec: PolicySpec | None) -> None:
        """Carried through to the end, which `closed` is told of. spec: what is to be cut, and what may drain."""
        seconds = drains_for(spec, cause) if spec is not None else 0.0
        if seconds > 0:
            self._delivery.drain(reason, seconds)
        else:
            self._delivery.close(reason)

    def heartbeat(self) -> None:
        """Only for a sidecar that is healthy."""
        self._delivery.heartbeat()

    def stalled(self, reason: str) -> None:
        """Time passed that nobody vouches for: what drains may have done so for longer than its timer has counted."""
        if self._delivery.draining:
            self._delivery.close(reason)

    @property
    def closing(self) -> bool:
        """Is a closing under way, not yet verified?"""
        return self._delivery.closing

    @property
    def refuses(self) -> int:
        """The version of the list of denials that this Envoy has acknowledged, which evidence states."""
        return self._delivery.refuses

    def severed(self, done: Severed) -> None:
        self._severing.severed(done)

    def swept(self, done: Swept) -> None:
        self._delivery.swept(done)

    def vouched(self, word: Guarded) -> None:
        """The measurer's word on whoever took the seat; what is open may be served after it."""
        self._keys.vouched(word.pid, workload=word.workload, outlives=word.outlives)

    def guard_again(self) -> None:
        """By another measurer than the one that was told of it, and that took what it was asked with it."""
        envoy = self.server.client
        if envoy is not None:
            self._order(Guard(envoy.pid), envoy.pidfd)
        if self._delivery.closing:
            self._delivery.close("measurer-back")

    # Ends.

    def abandoned(self, reason: str) -> None:
        """The measurer, who would have cut what is open, is gone: what is not closed by now ends with Envoy."""
        if self._delivery.draining:
            self._delivery.close(reason)
        self._delivery.end_envoy(reason)

    def close_for_good(self, *, is_open: bool) -> None:
        """The sidecar stops: nothing that it answered for goes on, and no closing is left half-way."""
        if is_open or self._delivery.draining:
            self._delivery.close("sidecar-stopped")
        self._delivery.end_envoy("the sidecar stops")
        self._delivery.stop()
        self._severing.stop()

    def _answered(self, verdict: Verdict) -> None:
        self._telling.judged(verdict)
        self._serving.answered(verdict)
        self._proxy.answered(verdict)

    def _guard(self, envoy: Peer) -> None:
        self._proxy.seated(envoy)
        self._serving.seated()
        self._delivery.seated()
        self._order(Guard(envoy.pid), envoy.pidfd)

    def _refuses(self, version: int) -> None:
        """Envoy has taken over whom to refuse: what it opened to them before that is ended now."""
        self._telling.refuses(version)
        self._sever()

    def _connected(self, subject: str) -> None:
        """Somebody shook hands before Envoy knew whom to refuse, and is told of only now."""
        if subject in self._refusals.subjects:
            self._sever()

    def _sever(self) -> None:
        """Whatever is open to the denied, whoever opened it."""
        ours = self._described
        called = self._refusals.addresses(ours) if ours is not None else self._refusals.among(self._peers)
        calling = addresses_of(self.server.callers.named(self._refusals.subjects))
        self._severing.begin((*calling, *called))

    def _happened(self, told: Told) -> None:
        if told.happening is Happening.ESCALATED and self._own is not None:
            self._own.condemn()
        if told.happening in (Happening.CLOSED, Happening.BOUNDED):
            self._closed()
        self._telling.delivered(told)

    def _write_bootstrap(self) -> None:
        """For an Envoy that is delivered everything: it has to be told where from, and no more."""
        service = self._settings.service
        if service is None:
            return
        socket, admin = self._settings.socket.absolute(), service.admin.absolute()
        try:
            write_bootstrap(delivered_bootstrap(str(socket), "proofbeat", socket, admin), service.bootstrap)
        except OSError as error:
            raise InvalidConfiguration(
                f"Envoy's bootstrap cannot be written: {error.strerror}",
                where=f"delivery.service.bootstrap: {service.bootstrap}",
                mend="Name a file in a folder that the sidecar may write.",
            ) from error


def _own(settings: DeliverySettings, launch: Launch | None, telling: Telling) -> OwnEnvoy | None:
    service = settings.service
    return OwnEnvoy(launch, service, telling) if launch is not None and service is not None else None
