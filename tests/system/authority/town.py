"""One real authority (TLS on loopback, SQLite on disk) and attesters that speak to it through the real client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import evidence, keys, manifest, processes, results
from attestation.bodies import DIGEST_OF
from attestation.claims import Claims, LayerClaim
from attestation.coverage import CollectorCoverage, Coverage, Mechanism
from attestation.digests import Digest
from attestation.errors import Refused
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.manifest import Entry
from attestation.processes import ProcessKind
from attestation.results import Result
from authority.app import Authority, Listening
from authority.config import AuthorityConfig, CaConfig, DetectorsConfig, ReferencesConfig
from wire import link, messages, problems, proofs, tls
from wire.messages import Answer, Enrolment, Nonce, Posted, Push, Reply, Request
from wire.proofs import Purpose
from wire.session import AuthorityClient, Endpoint, JoinToken, Ticket
from wire.versions import HEADER, OURS

TRUST_DOMAIN = "town.example"
TOKEN = "a detector's token of this town alone"
MAIN = "/srv/app/main.py"
PYTHON = "/usr/bin/python3"
GOOD, BAD, RUNTIME = (hashlib.sha256(text).hexdigest() for text in (b"good", b"bad", b"python"))


API_REGISTRATION = f"""---
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {{name: api}}
spec: {{spiffeId: spiffe://{TRUST_DOMAIN}/api, references: web}}
"""


def policies(*, mode: str = "enforce", interval: str = "10s", freshness: str = "60s") -> str:
    """Two registrations, `web` and `api`, under one policy."""
    return f"""
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {{name: hardened}}
spec:
  mode: {mode}
  interval: {interval}
  freshness: {freshness}
  files: {{include: [/srv/app]}}
---
apiVersion: proofbeat.dev/v1alpha1
kind: ReferenceValues
metadata: {{name: web}}
spec:
  files: {{{MAIN}: {{digests: [{GOOD}]}}}}
  executables: {{{PYTHON}: [{RUNTIME}]}}
---
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {{name: web}}
spec: {{spiffeId: spiffe://{TRUST_DOMAIN}/web, references: web}}
{API_REGISTRATION}"""


class Clock:
    """The authority's wall clock, which a test can move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Town:
    folder: Path
    clock: Clock
    authority: Authority
    where: Listening

    def endpoint(self) -> Endpoint:
        return Endpoint(self.where.url, self.where.trust_domain, self.where.bundle)


def configured(folder: Path, listen: str = "127.0.0.1:0", trusted: Path | None = None) -> AuthorityConfig:
    """trusted: the public key that reference values must be signed by; None where nobody has to have signed them."""
    token = folder / "detector-token"
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text(TOKEN)
    return AuthorityConfig(
        trust_domain=TRUST_DOMAIN,
        listen=listen,
        store=folder / "authority.sqlite",
        policies=(folder / "policies.yaml",),
        ca=CaConfig(folder=folder / "ca", name="Town"),
        admin=folder / "admin.sock",
        references=ReferencesConfig(trusted_keys=None if trusted is None else (trusted,)),
        detectors=DetectorsConfig(token_files=(token,), hosts=("127.0.0.1", "authority.example")),
    )


@contextlib.asynccontextmanager
async def town(
    folder: Path,
    *,
    listen: str = "127.0.0.1:0",
    clock: Clock | None = None,
    rules: str | None = None,
    trusted: Path | None = None,
) -> AsyncIterator[Town]:
    """A running authority; the same folder again is the same authority after a restart. trusted: as `configured`."""
    if rules is not None or not (folder / "policies.yaml").exists():
        (folder / "policies.yaml").write_text(rules or policies())
    clock = clock or Clock()
    authority = Authority(configured(folder, listen, trusted), clock=clock)
    ready: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(authority.run(ready.set_result))
        waiting: tuple[asyncio.Future[Any], ...] = (running, ready)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        try:
            yield Town(folder, clock, authority, ready.result())
        finally:
            running.cancel()


def coverage() -> Coverage:
    return Coverage(
        (
            CollectorCoverage("files.inotify", Layer.FILES, Mechanism.INOTIFY, 1.0, running=True),
            CollectorCoverage("processes.poll", Layer.PROCESSES, Mechanism.POLL, 50.0, running=True),
        ),
        tuple(layer for layer in Layer if layer not in (Layer.FILES, Layer.PROCESSES)),
    )


def measured(content: Digest = GOOD, runtime: Digest = RUNTIME) -> dict[Layer, bytes]:
    kind = ProcessKind(PYTHON, runtime, "", "", 1000, 1000, "0", False, 0, ())
    return {
        Layer.FILES: manifest.pack([Entry(MAIN, manifest.FILE, 0o644, 0, 0, 4, content)]),
        Layer.PROCESSES: processes.pack([kind]),
    }


@dataclass
class Attester:
    """A sidecar's attesting part: an instance, its evidence key, and whatever state its rounds go through."""

    client: AuthorityClient
    instance: InstanceId
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    leaf: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    layers: dict[Layer, bytes] = field(default_factory=measured)
    generation: int = 0
    age_ms: int = 0
    enrolment: Enrolment | None = None
    nonce: Nonce | None = None
    pushed: asyncio.Queue[Push] = field(default_factory=asyncio.Queue)
    asked_for: list[Digest] = field(default_factory=list)

    async def enrol(self, credential: JoinToken | Ticket, *, unclean: bool = False) -> Enrolment:
        self.enrolment = await self.client.enrol(credential, self.instance, self.key, unclean=unclean)
        self.nonce = self.enrolment.nonce
        return self.enrolment

    @property
    def known(self) -> Enrolment:
        assert self.enrolment is not None
        return self.enrolment

    @property
    def held(self) -> Nonce:
        assert self.nonce is not None
        return self.nonce

    def bodies(self) -> dict[Digest, bytes]:
        return {DIGEST_OF[layer](body): body for layer, body in self.layers.items()}

    def claims(self) -> Claims:
        digests = zip(self.layers, self.bodies(), strict=True)
        return Claims(
            self.instance,
            self.held.sequence,
            self.generation,
            self.known.policy_epoch,
            0,
            keys.public_der(self.leaf.public_key()),
            "boot",
            tuple(LayerClaim(layer, digest, Method.FULL, self.age_ms, self.age_ms, 1) for layer, digest in digests),
            coverage(),
        )

    def signed(self, change: Callable[[Claims], Claims] = lambda claims: claims) -> bytes:
        return evidence.sign(change(self.claims()), self.held.value, self.key, issued_at=time.time())

    async def send(self, signed: bytes) -> Answer:
        known = self.bodies()

        def body(digest: Digest) -> bytes:
            self.asked_for.append(digest)
            return known[digest]

        answer = await self.client.attest(signed, body)
        self.nonce = answer.nonce
        return answer

    async def round(self) -> Answer:
        return await self.send(self.signed())

    def result(self, answer: Answer) -> Result:
        return results.parse(answer.ear, keys.from_der(self.known.result_key), now=time.time())


def numbered(number: int) -> InstanceId:
    return InstanceId(f"i-{number:032x}")


def stranger(where: Town, number: int = 1) -> Attester:
    """Not enrolled yet."""
    pushed: asyncio.Queue[Push] = asyncio.Queue()
    client = AuthorityClient(where.endpoint(), pushed.put_nowait, timeout=30.0)
    return Attester(client, numbered(number), pushed=pushed)


@contextlib.asynccontextmanager
async def attester(
    where: Town, number: int = 1, *, session: bool = True, registration: str = "web"
) -> AsyncIterator[Attester]:
    """Enrolled with a join token; with a session, or by POST only."""
    one = stranger(where, number)
    await one.enrol(JoinToken(await where.authority.create_token(registration)))
    async with holding(one, session=session):
        yield one


@contextlib.asynccontextmanager
async def holding(one: Attester, *, session: bool = True) -> AsyncIterator[None]:
    """While it runs the session is up; at its end the client is gone without a goodbye."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(one.client.hold()) if session else None
        if session:
            await one.client.wait_connected()
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
            await one.client.close(clean=False)


def played(
    folder: Path,
    story: Callable[[Town, Attester], Awaitable[None]],
    *,
    rules: str | None = None,
    session: bool = True,
) -> None:
    """A story of a town and one attester in it."""

    async def whole() -> None:
        async with town(folder, rules=rules) as where, attester(where, session=session) as one:
            await story(where, one)

    asyncio.run(whole())


async def refusal(awaited: Awaitable[object]) -> Refused:
    """How it is refused, as it has to be."""
    with pytest.raises(Refused) as refused:
        await awaited
    return refused.value


async def posted(where: Town, one: Attester, request: Request) -> Reply:
    """What another program with the same key would send, past everything the client looks after."""
    sealed = proofs.seal(Posted(one.instance, messages.encode(request)), Purpose.POST, one.key)
    context = tls.client_context(where.where.bundle, where.where.trust_domain)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http,
        http.post(where.where.url + "/v1/attest", data=sealed, headers={HEADER: str(OURS)}) as answer,
    ):
        content = await answer.read()
        if answer.content_type == problems.MEDIA_TYPE:
            raise problems.error_of(problems.from_json(content))
        return link.checked(messages.decode(content).message)


def another_key(one: Attester) -> Attester:
    """The same instance and session, signing with a key that did not enrol."""
    return replace(one, key=ec.generate_private_key(ec.SECP256R1()))
