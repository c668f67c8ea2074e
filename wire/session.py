"""The sidecar's side of the conversation: enrol, hold a session open, ask, and post where no session can be had."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import digests, evidence, keys, parts
from attestation.digests import Digest
from attestation.errors import InvalidInput, Refused, Unavailable
from attestation.instance import InstanceId
from attestation.wording import shown, shown_lines
from wire import backoff, link, messages, proofs
from wire.link import Link
from wire.messages import (
    Answer,
    AskDenials,
    AskHold,
    AskNonce,
    AskPolicy,
    Attest,
    Body,
    Denials,
    Done,
    Enrol,
    Enrolment,
    Goodbye,
    Hold,
    Need,
    Nonce,
    Noted,
    Outline,
    Placed,
    PolicyChanged,
    Posted,
    Push,
    Reachable,
    Reply,
    Report,
    Request,
    Standing,
)
from wire.proofs import Purpose
from wire.transport import Endpoint, Transport
from wire.versions import Version

_MOST_ASKED_AGAIN = 3
_SETTLED = 5.0
"""Seconds after which a session counts as one that worked."""
_PATHS: dict[type[Request], str] = {
    AskNonce: "/v1/challenge",
    Attest: "/v1/attest",
    Report: "/v1/report",
    AskPolicy: "/v1/policy",
    AskDenials: "/v1/denials",
    Reachable: "/v1/reachable",
    Goodbye: "/v1/goodbye",
}

__all__ = ["AuthorityClient", "Endpoint", "JoinToken", "Ticket"]

Wanted = TypeVar("Wanted", bound=Reply)


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
        self._transport = Transport(endpoint, timeout)
        self._on_push = on_push
        self._timeout = timeout
        self._link: Link | None = None
        self._who: tuple[InstanceId, ec.EllipticCurvePrivateKey] | None = None
        self._signed: tuple[bytes, Digest] = (b"", "")
        self._closing = asyncio.Event()
        self._linked, self._lost = asyncio.Event(), asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a session is up. Without one, requests go by POST."""
        return self._link is not None

    @property
    def version(self) -> Version:
        """What the authority chose when it last answered."""
        return self._transport.version

    async def wait_connected(self) -> None:
        """Until a session is up."""
        await self._linked.wait()

    async def wait_lost(self) -> None:
        """Until none is."""
        await self._lost.wait()

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
        sealed = proofs.seal(request, Purpose.ENROL, key)
        reply = await self._transport.post("/v1/enroll", lambda _: sealed)
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
                    began = asyncio.get_running_loop().time()
                    await session.read()
                    # One that ends at once is no success: whoever is thrown out again and again slows down.
                    lasted = asyncio.get_running_loop().time() - began >= _SETTLED
                    attempt = 0 if lasted else attempt + 1
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
        request = Attest(signed, in_parts=True)
        reply = await self._ask(request)
        for _ in range(_MOST_ASKED_AGAIN):
            if not isinstance(reply, Need):
                break
            request = with_needed(request, reply, bodies)
            reply = await self._ask(request)
        return _expect(reply, Answer)

    async def report(self, report: Report) -> Standing:
        """Tells of a violation. When this returns, the authority has it on disk."""
        return _expect(await self._ask(_harmless(report)), Standing)

    async def policy(self) -> PolicyChanged:
        """The policy document in force for this instance."""
        return _expect(await self._ask(AskPolicy()), PolicyChanged)

    async def denials(self) -> Denials | None:
        """Whom peers are to refuse. None from an authority of before wire 1.2, which does not say."""
        if not messages.knows(self._transport.version, AskDenials):
            return None
        return _expect(await self._ask(AskDenials()), Denials)

    async def reachable(self, addresses: tuple[str, ...]) -> None:
        """Tells where our Envoy listens for peers; when this returns, it is on disk. Nothing to tell an authority of
        before wire 1.2. Raises Refused (malformed) for what is no such list.
        """
        if messages.knows(self._transport.version, Reachable):
            _expect(await self._ask(Reachable(addresses)), Done)

    async def tell(self, told: Placed | Noted) -> bool:
        """What is only said in a session. False without one, and to an authority of before wire 1.8.

        Raises Unavailable where no answer came in time, and Refused.
        """
        session = self._link
        if session is None or not messages.knows(self._transport.version, type(told)):
            return False
        _expect(await session.ask(told, self._timeout), Done)
        return True

    async def hold_back(self, question: AskHold, timeout: float) -> Hold:
        """Whether to stay open in spite of this drift. timeout: seconds for the answer.

        Raises Unavailable without a session and where no answer came in time, and InvalidInput where the authority is
        from before wire 1.5.
        """
        session = self._link
        if session is None:
            raise Unavailable("there is no session to ask in", where="authority session")
        return _expect(await session.ask(question, timeout), Hold)

    async def close(self, *, clean: bool = True) -> None:
        """Ends the session. clean: this run ends in order; the next start then is no unclean one.

        A goodbye that the authority does not take changes nothing: it sees a run without one, and so an unclean end.
        """
        self._closing.set()
        try:
            if clean and self._who is not None:
                _expect(await self._ask(Goodbye()), Done)
        except (Unavailable, Refused, InvalidInput):
            pass
        finally:
            if self._link is not None:
                await self._link.close()
            await self._transport.close()

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
                if self._transport.closed:
                    raise
        instance, key = self._known()

        def sealed(version: Version) -> bytes:
            posted = Posted(instance, messages.encode(request, version=version))
            return proofs.seal(posted, Purpose.POST, key)

        return await self._transport.post(_PATHS[type(request)], sealed)

    def _known(self) -> tuple[InstanceId, ec.EllipticCurvePrivateKey]:
        if self._who is None:
            raise InvalidInput("nobody has enrolled yet", where="authority session", mend="Call enrol first.")
        return self._who

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Link]:
        opening = await self._transport.open_session(*self._known())
        try:
            self._link = Link(opening.socket, self._on_push, opening.version)
            self._lost.clear()
            self._linked.set()
            yield self._link
        finally:
            self._link = None
            self._linked.clear()
            self._lost.set()
            await opening.socket.close()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


def _harmless(report: Report) -> Report:
    """What the workload had a hand in, fit for any encoding and bounded."""
    process = report.process
    return replace(
        report,
        cause=shown(report.cause),
        subject=shown(report.subject),
        process=process and replace(process, executable=shown(process.executable)),
        rule=shown(report.rule),
        mend=shown(report.mend),
        allow=shown_lines(report.allow),
        found=shown(report.found),
    )


def with_needed(request: Attest, need: Need, bodies: Callable[[Digest], bytes]) -> Attest:
    """The same evidence with what is asked for. Outlines that were sent before are sent again with the parts."""
    whole = [Body(digest, bodies(digest)) for digest in need.digests]
    outlines = [each for each in request.outlines if need.parts]
    for digest in need.outlines:
        text = parts.outline(parts.cut(bodies(digest)))
        if text:
            outlines.append(Outline(digest, text))
        else:
            whole.append(Body(digest, bodies(digest)))
    lacking, sent = set(need.parts), []
    for outline in outlines if lacking else ():
        for part in parts.cut(bodies(outline.digest)):
            if parts.digest(part) in lacking:
                lacking.discard(parts.digest(part))
                sent.append(part)
    return replace(request, bodies=tuple(whole), outlines=tuple(outlines), parts=tuple(sent))


def _expect(reply: Reply, shape: type[Wanted]) -> Wanted:
    if not isinstance(reply, shape):
        raise InvalidInput(
            f"{type(reply).__name__} where {shape.__name__} belongs", where="authority", mend=link.MEND_CONVERSATION
        )
    return reply
