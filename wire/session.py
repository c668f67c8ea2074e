"""The sidecar's side of the conversation: enrol, hold a session open, ask, and post where no session can be had."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import digests, evidence, keys
from attestation.digests import Digest
from attestation.errors import InvalidInput, Refused, Unavailable
from attestation.instance import InstanceId
from wire import backoff, link, messages, problems, proofs, tls
from wire.link import Link
from wire.messages import (
    Answer,
    AskNonce,
    AskPolicy,
    Attest,
    Body,
    Done,
    Enrol,
    Enrolment,
    Goodbye,
    Hello,
    Need,
    Nonce,
    PolicyChanged,
    Posted,
    Push,
    Reply,
    Report,
    Request,
    Standing,
)
from wire.problems import Kind
from wire.proofs import Purpose

HEARTBEAT = 20.0
_MOST_ASKED_AGAIN = 3
_CHALLENGE = re.compile(r'Proofbeat challenge="([A-Za-z0-9_-]+)"')
_PATHS: dict[type[Request], str] = {
    AskNonce: "/v1/challenge",
    Attest: "/v1/attest",
    Report: "/v1/report",
    AskPolicy: "/v1/policy",
    Goodbye: "/v1/goodbye",
}

Wanted = TypeVar("Wanted", bound=Reply)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the authority is, and how it is known. url: https://host:port. bundle: PEM."""

    url: str
    trust_domain: str
    bundle: str


@dataclass(frozen=True, slots=True)
class JoinToken:
    value: str


@dataclass(frozen=True, slots=True)
class Ticket:
    value: str


class AuthorityClient:
    """One instance and its authority. Every request is safe to repeat, so each is tried on both ways.

    on_push: called from `hold` for what the authority says unasked; must not block. timeout: seconds for one answer.
    """

    def __init__(self, endpoint: Endpoint, on_push: Callable[[Push], None], *, timeout: float = 10.0) -> None:
        tls.shrink_buffers()
        self._endpoint = endpoint
        self._on_push = on_push
        self._timeout = timeout
        self._tls = tls.client_context(endpoint.bundle, endpoint.trust_domain)
        self._http: aiohttp.ClientSession | None = None
        self._link: Link | None = None
        self._who: tuple[InstanceId, ec.EllipticCurvePrivateKey] | None = None
        self._signed: tuple[bytes, Digest] = (b"", "")
        self._closing = asyncio.Event()
        self._linked = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a session is up. Without one, requests go by POST."""
        return self._link is not None

    async def wait_connected(self) -> None:
        """Until a session is up."""
        await self._linked.wait()

    async def enrol(
        self,
        credential: JoinToken | Ticket,
        instance: InstanceId,
        key: ec.EllipticCurvePrivateKey,
        *,
        unclean: bool = False,
    ) -> Enrolment:
        """Binds the evidence key to the instance. Repeat it with the same key when the answer got lost.

        Raises Refused (token-*, ticket-*, registration-*) and Unavailable.
        """
        request = Enrol(
            instance,
            keys.public_der(key.public_key()),
            join_token=credential.value if isinstance(credential, JoinToken) else "",
            ticket=credential.value if isinstance(credential, Ticket) else "",
            unclean=unclean,
        )
        reply = await self._send("/v1/enroll", proofs.seal(request, Purpose.ENROL, key))
        enrolment = _expect(reply, Enrolment)
        self._who = (instance, key)
        return enrolment

    async def hold(self) -> None:
        """Keeps a session up until `close`, with backoff. Run it in your task group, after `enrol`.

        Raises Refused when the authority does not know this instance or key any more (enrol again).
        """
        attempt = 0
        while not self._closing.is_set():
            try:
                async with self._session() as session:
                    attempt = 0
                    await session.read()
            except (Unavailable, InvalidInput):
                attempt += 1
            await self._pause(backoff.delay(attempt, random.random()))  # noqa: S311 - jitter, no secret

    async def challenge(self) -> Nonce:
        """A fresh nonce. Note the time before you ask: leases count from no later than then."""
        return _expect(await self._ask(AskNonce()), Nonce)

    async def attest(self, signed: bytes, bodies: Callable[[Digest], bytes]) -> Answer:
        """One round. bodies: gives the packed layer of a digest claimed in this evidence, when it is asked for.

        After Unavailable, send the same bytes again. Raises InvalidInput, before anything is sent, for other
        evidence over a nonce already used: the authority would have to take it for a cloned attester's.
        """
        self._sign_once(signed)
        reply = await self._ask(Attest(signed))
        for _ in range(_MOST_ASKED_AGAIN):
            if not isinstance(reply, Need):
                break
            asked = tuple(Body(digest, bodies(digest)) for digest in reply.digests)
            reply = await self._ask(Attest(signed, asked))
        return _expect(reply, Answer)

    async def report(self, report: Report) -> Standing:
        """Tells of a violation. When this returns, the authority has it on disk."""
        return _expect(await self._ask(report), Standing)

    async def policy(self) -> PolicyChanged:
        """The policy document in force for this instance."""
        return _expect(await self._ask(AskPolicy()), PolicyChanged)

    async def close(self, *, clean: bool = True) -> None:
        """Ends the session. clean: this run ends in order; the next start then is no unclean one."""
        self._closing.set()
        try:
            if clean and self._who is not None:
                _expect(await self._ask(Goodbye()), Done)
        finally:
            if self._link is not None:
                await self._link.close()
            if self._http is not None:
                await self._http.close()

    def _sign_once(self, signed: bytes) -> None:
        nonce, digest = evidence.nonce_of(signed), digests.of_content(signed)
        if nonce == self._signed[0] and digest != self._signed[1]:
            raise InvalidInput("other evidence over the same nonce", where="attest", mend="Ask for a new nonce.")
        self._signed = (nonce, digest)

    async def _ask(self, request: Request) -> Reply:
        session = self._link
        if session is not None:
            try:
                return await session.ask(request, self._timeout)
            except Unavailable:
                if self._http is None or self._http.closed:
                    raise
        instance, key = self._known()
        posted = Posted(instance, messages.encode(request))
        return await self._send(_PATHS[type(request)], proofs.seal(posted, Purpose.POST, key))

    def _known(self) -> tuple[InstanceId, ec.EllipticCurvePrivateKey]:
        if self._who is None:
            raise InvalidInput("nobody has enrolled yet", where="authority session", mend="Call enrol first.")
        return self._who

    async def _send(self, path: str, body: bytes) -> Reply:
        async with self._reaching():
            answer = await self._client().post(
                self._endpoint.url + path,
                data=body,
                headers={"Content-Type": messages.MEDIA_TYPE},
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            )
            async with answer:
                content = await answer.read()
        if answer.content_type == problems.MEDIA_TYPE:
            raise problems.error_of(problems.from_json(content))
        if answer.status != 200:
            raise Unavailable(f"status {answer.status}", where=self._endpoint.url)
        return link.checked(messages.decode(content).message)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Link]:
        instance, key = self._known()
        url = self._endpoint.url + "/v1/session"
        async with self._reaching():
            hello = Hello(instance, await self._session_challenge(url))
            proof = base64.urlsafe_b64encode(proofs.seal(hello, Purpose.SESSION, key)).decode()
            socket = await self._client().ws_connect(
                url,
                headers={"Authorization": f"Proofbeat {proof}"},
                heartbeat=HEARTBEAT,
                max_msg_size=messages.MOST_FRAME,
            )
        try:
            self._link = Link(socket, self._on_push)
            self._linked.set()
            yield self._link
        finally:
            self._link = None
            self._linked.clear()
            await socket.close()

    async def _session_challenge(self, url: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        async with self._client().get(url, timeout=timeout) as answer:
            found = _CHALLENGE.fullmatch(answer.headers.get("WWW-Authenticate", ""))
        if found is None:
            raise Unavailable("no challenge for a session", where=url)
        return base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4))

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        """Turns what can go wrong on the way into Unavailable, or into the refusal that it is."""
        try:
            yield
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise Refused(
                    "the authority does not know this instance under this key",
                    kind=Kind.INSTANCE_UNKNOWN,
                    where=self._endpoint.url,
                    mend="Enrol again.",
                ) from error
            raise Unavailable(f"no session: status {error.status}", where=self._endpoint.url) from error
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            raise Unavailable(
                f"the authority cannot be reached: {str(error) or type(error).__name__}", where=self._endpoint.url
            ) from error

    def _client(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=4)
            self._http = aiohttp.ClientSession(connector=connector)
        return self._http

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


def _expect(reply: Reply, shape: type[Wanted]) -> Wanted:
    if not isinstance(reply, shape):
        raise InvalidInput(f"a {type(reply).__name__} where a {shape.__name__} belongs", where="authority")
    return reply
