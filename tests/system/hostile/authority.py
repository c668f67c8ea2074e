"""A hostile authority: the reserved ID, the enrolled bundle and the keys are its own, and it says what it likes.

It affirms whatever evidence comes, except where a move is up. What it answered honestly it remembers, with the lease
that this answer was good for: whatever else a sidecar serves, it ought not to have believed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import evidence, jws, keys, results
from attestation.evidence import Evidence
from attestation.instance import InstanceId
from attestation.results import Result
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector
from authority.issuer import ca as authorities
from authority.issuer import crl, leaf
from authority.issuer.ca import Ca
from authority.serving import Serving
from wire import messages, problems, versions
from wire.messages import (
    Answer,
    AskDenials,
    AskHold,
    AskNonce,
    AskPolicy,
    Attest,
    Denials,
    Denied,
    Done,
    Enrol,
    Enrolment,
    Goodbye,
    Hold,
    Message,
    Nonce,
    Noted,
    Placed,
    PolicyChanged,
    Posted,
    Push,
    Report,
    Request,
    Standing,
)
from wire.problems import Problem
from wire.proofs import Opened
from wire.versions import Version

TRUST_DOMAIN = "hostile.example"
IDENTITY = SpiffeId(TRUST_DOMAIN, "/web")
PROFILE_DIGEST = "ab" * 32


@dataclass(frozen=True)
class Given:
    """An identity that was earned. end: CLOCK_BOOTTIME at which its lease is over, counted from the nonce's issue."""

    end: float
    generation: int


@dataclass
class Asked:
    """A request for a result. honest: what a decent authority would say. send: one frame, the answer or another.

    speaks: the version of the wire that was chosen.
    """

    number: int
    told: Evidence
    honest: Answer
    send: Callable[[bytes], Awaitable[None]]
    socket: web.WebSocketResponse | None
    speaks: Version

    def frame(self, message: Message, number: int | None = None) -> bytes:
        return messages.encode(message, self.number if number is None else number, version=self.speaks)


Move = Callable[["HostileAuthority", Asked], Awaitable[None]]
"""How one request for a result is answered, if at all."""


async def honestly(authority: HostileAuthority, asked: Asked) -> None:
    """The one move that earns an identity."""
    authority.gives(asked)
    await asked.send(asked.frame(asked.honest))


@dataclass
class HostileAuthority:
    """policy: of AttestationPolicy.spec and ReferenceValues.spec, as JSON. orders: to break the glass, told with every
    answer. usual: how requests are answered when no move is up. on_enrol: changes the answer to an enrolment.
    """

    ca: Ca
    spec: dict[str, Any]
    references: dict[str, Any]
    freshness: float
    epoch: int = 5
    usual: Move = honestly
    on_enrol: Callable[[Enrolment], Message] = field(default=lambda enrolment: enrolment)
    on_ask: Callable[[Request, Message], Message] = field(default=lambda _, honest: honest)
    given: dict[str, Given] = field(default_factory=dict)
    told: list[Evidence] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    heard: list[tuple[str, str | None]] = field(default_factory=list)
    enrolled: InstanceId | None = None
    policy: str = ""
    orders: tuple[str, ...] = ()
    url: str = ""
    speaks: Version = versions.OURS.highest

    def __post_init__(self) -> None:
        self.signer = jws.Signer(self.ca.result_key)
        self.policy = self.document()
        self.nonces: dict[bytes, float] = {}
        self.sequence = int(time.time() * 1000)
        self.session: web.WebSocketResponse | None = None
        self.linked = asyncio.Event()
        self.asking = asyncio.Event()
        """Set by a move that holds an answer back."""
        self._moves: deque[tuple[Move, asyncio.Future[None] | None]] = deque()
        self._moved: dict[bytes, tuple[Move, asyncio.Future[None] | None]] = {}

    # What it says.

    def play(self, move: Move) -> asyncio.Future[None]:
        """The next request for a result is answered so. Done when it has been."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._moves.append((move, done))
        return done

    async def push(self, message: Push) -> None:
        await self.raw(messages.encode(message, version=self.speaks))

    async def raw(self, frame: bytes) -> None:
        """Into the open session, whatever it is."""
        await self.linked.wait()
        assert self.session is not None
        await self.session.send_bytes(frame)

    def nonce(self, *, full: bool = False) -> Nonce:
        self.sequence += 1
        value = secrets.token_bytes(61)
        self.nonces[value] = time.clock_gettime(time.CLOCK_BOOTTIME)
        return Nonce(value, self.sequence, int(time.time() * 1000), 20_000, full)

    def document(self, signer: jws.Signer | None = None, **changes: Any) -> str:
        """The signed policy, or another one. changes: epoch, spec, identity, and any part as a whole."""
        version = {"apiVersion": "proofbeat.dev/v1alpha1"}
        named = {"metadata": {"name": "web"}}
        identity = changes.pop("identity", str(IDENTITY))
        registered = {"spiffeId": identity, "references": "web"}
        body = {
            "epoch": self.epoch,
            "policy": {**version, "kind": "AttestationPolicy", **named, "spec": changes.pop("spec", self.spec)},
            "references": {**version, "kind": "ReferenceValues", **named, "spec": self.references},
            "registration": {**version, "kind": "WorkloadRegistration", **named, "spec": registered},
            **changes,
        }
        return (signer or self.signer).sign(json.dumps(body).encode(), kind=results.POLICY_KIND)

    def result(self, told: Evidence) -> Result:
        now, issued = time.time(), self.nonces.get(told.nonce, 0.0)
        left = issued + self.freshness - time.clock_gettime(time.CLOCK_BOOTTIME)
        return Result(
            status=Tier.AFFIRMING,
            vector=TrustVector(executables=2, file_system=2),
            nonce=told.nonce,
            issued_at=int(now),
            expires_at=int(now + left),
            verifier="hostile",
            instance=told.claims.instance,
            spiffe_id=IDENTITY,
            mode=self.spec["mode"],
            generation=told.claims.generation,
            policy_epoch=told.claims.policy_epoch,
            policy_digest=PROFILE_DIGEST,
        )

    def answer(self, told: Evidence, result: Result | None = None, **changes: Any) -> Answer:
        """A well-formed answer around any result. changes: signer; of the leaf key, identity, start, end, ca, ear and
        mark.
        """
        result = result or self.result(told)
        ear = results.build(result, changes.pop("signer", self.signer))
        chain = self.chain(told, result, changes.pop("ear", ear), **changes)
        issued_ms = (result.expires_at - int(self.freshness)) * 1000
        return Answer(ear, chain, 0, self.epoch, issued_ms, int(self.freshness) * 1000, self.nonce(), self.orders)

    def chain(self, told: Evidence, result: Result, ear: str, **changes: Any) -> str:
        return leaf.sign(
            leaf.Leaf(
                identity=changes.get("identity", IDENTITY),
                instance=told.claims.instance,
                public_key=changes.get("key") or keys.from_der(told.claims.leaf_key),
                serial=x509.random_serial_number(),
                not_before=authorities.utc(changes.get("start", time.time() - 30)),
                not_after=authorities.utc(changes.get("end", result.expires_at)),
                ear=ear,
                break_glass=changes.get("mark", result.break_glass),
            ),
            changes.get("ca", self.ca),
        )

    def gives(self, asked: Asked) -> None:
        """From here on the sidecar may serve this answer's identity, for as long as its lease runs."""
        end = self.nonces[asked.told.nonce] + self.freshness
        self.given[fingerprint(asked.honest.chain)] = Given(end, asked.told.claims.generation)
        self.answers.append(asked.honest)

    def honest(self, request: Message) -> Message:
        """What a decent authority says to anything but a request for a result."""
        match request:
            case Enrol():
                return self.enrolment(request)
            case AskNonce():
                return self.nonce()
            case AskPolicy():
                return PolicyChanged(self.epoch, self.policy)
            case Report():
                self.reports.append(request)
                return Standing(quarantined=False, causes=())
            case AskDenials():
                return self.denials()
            case AskHold():
                return Hold(request.number, held=False, closed=0, live=1)
            case Goodbye() | Placed() | Noted():
                return Done()
            case _:
                raise AssertionError(request)

    def denials(
        self, version: int = 0, *denied: Denied, ca: Ca | None = None, serials: tuple[int, ...] = ()
    ) -> Denials:
        """A list of whom to refuse. serials: in its CRL. ca: that signs the CRL."""
        now = authorities.utc(time.time())
        revoked = [crl.Revoked(serial, now) for serial in serials]
        return Denials(version, denied, crl.sign(revoked, version, now, ca or self.ca))

    def enrolment(self, request: Enrol) -> Message:
        self.enrolled = request.instance
        bundle, key = self.ca.bundle, keys.public_der(self.ca.result_key.public_key())
        standing = Standing(quarantined=False, causes=())
        return self.on_enrol(
            Enrolment(str(IDENTITY), "ticket", self.nonce(), self.policy, self.epoch, bundle, key, standing)
        )

    # How it is reached.

    def routes(self) -> list[web.RouteDef]:
        posts = ("/v1/challenge", "/v1/attest", "/v1/report", "/v1/policy", "/v1/denials", "/v1/goodbye")
        return [
            web.post("/v1/enroll", self._enrol),
            web.get("/v1/session", self._session),
            *(web.post(path, self._post) for path in posts),
        ]

    async def _enrol(self, request: web.Request) -> web.Response:
        sealed = await request.read()
        self.heard.append(("enrol", request.headers.get(versions.HEADER)))
        return self._response(self.enrolment(Opened(sealed).claimed(Enrol)))

    async def _post(self, request: web.Request) -> web.Response:
        posted = Opened(await request.read()).claimed(Posted)
        frame = messages.decode(posted.request)
        bodies: list[bytes] = []

        async def keep(answer: bytes) -> None:
            bodies.append(answer)

        await self._respond(frame.message, messages.PUSH, keep, None)
        return web.Response(body=bodies[0], content_type=messages.MEDIA_TYPE, headers=self._chosen())

    async def _session(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            challenge = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
            headers = {"WWW-Authenticate": f'Proofbeat challenge="{challenge}"', **self._chosen()}
            return web.Response(status=401, headers=headers)
        socket = web.WebSocketResponse(max_msg_size=messages.MOST_FRAME)
        await socket.prepare(request)
        self.session = socket
        self.linked.set()
        try:
            async for received in socket:
                assert received.type is WSMsgType.BINARY
                frame = messages.decode(received.data)
                await self._respond(frame.message, frame.number, socket.send_bytes, socket)
        except ConnectionError:
            pass
        finally:
            if self.session is socket:
                self.session = None
                self.linked.clear()
        return socket

    async def _respond(
        self,
        request: Message,
        number: int,
        send: Callable[[bytes], Awaitable[None]],
        socket: web.WebSocketResponse | None,
    ) -> None:
        if not isinstance(request, Attest):
            reply = self.on_ask(request, self.honest(request))  # type: ignore[arg-type] # a request, by what is asked
            await send(messages.encode(reply, number, version=self.speaks))
            return
        told = evidence.verify(request.evidence)
        self.told.append(told)
        asked = Asked(number, told, self.answer(told), send, socket, self.speaks)
        # What was asked on a session and not answered there is asked again by POST: the move is the same.
        if told.nonce not in self._moved:
            self._moved = {told.nonce: self._moves.popleft() if self._moves else (self.usual, None)}
        move, done = self._moved[told.nonce]
        try:
            await move(self, asked)
        finally:
            if done is not None and not done.done():
                done.set_result(None)

    def _chosen(self) -> dict[str, str]:
        return {versions.HEADER: str(self.speaks)}

    def _response(self, reply: Message) -> web.Response:
        if isinstance(reply, Problem):
            body, kind = problems.to_json(reply), problems.MEDIA_TYPE
            return web.Response(status=reply.status, body=body, content_type=kind, headers=self._chosen())
        body = messages.encode(reply, version=self.speaks)
        return web.Response(body=body, content_type=messages.MEDIA_TYPE, headers=self._chosen())


def fingerprint(chain: str | bytes) -> str:
    """Of a chain's leaf; the same that the xDS client in envoy.py computes."""
    pem = chain if isinstance(chain, bytes) else chain.encode()
    return x509.load_pem_x509_certificates(pem)[0].fingerprint(hashes.SHA256()).hex()


def serial_of(chain: str) -> int:
    """Of a chain's leaf."""
    return x509.load_pem_x509_certificate(chain.encode()).serial_number


def changed(result: Result, **changes: Any) -> Result:
    return replace(result, **changes)


def another_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@asynccontextmanager
async def listening(
    routes: list[web.RouteDef], context: ssl.SSLContext, middlewares: tuple[Any, ...] = ()
) -> AsyncIterator[str]:
    """A TLS server with these routes; gives its URL."""
    application = web.Application(client_max_size=messages.MOST_FRAME, middlewares=middlewares)
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def reserved(ca: Ca, trust_domain: str = TRUST_DOMAIN) -> ssl.SSLContext:
    """The authority's own face."""
    serving = Serving(ca, trust_domain)
    serving.renew(time.time())
    return serving.context


def context_of(pem: str, folder: Path) -> ssl.SSLContext:
    """A server's context. pem: key and chain."""
    file = folder / "server.pem"
    file.write_text(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def made_ca(folder: Path, name: str = "Hostile") -> Ca:
    now = datetime.fromtimestamp(int(time.time()), authorities.utc(0).tzinfo) - timedelta(minutes=1)
    return authorities.generate(folder / name, name, 86400, now=now)
