"""The session: one authenticated WebSocket an instance. Requests are answered in order; pushes go in between."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from typing import cast, get_args

from aiohttp import WSCloseCode, WSMsgType, web

from attestation import keys
from attestation.errors import InvalidInput, ProofbeatError, Refused, Unavailable
from authority.api import replies
from authority.api.answering import Answering
from authority.api.challenges import Challenges
from authority.instances import Instances
from authority.sessions import Session, Sessions
from authority.store.records import Enrolled
from authority.store.store import Store
from wire import messages, problems
from wire.messages import Frame, Goodbye, Hello, Push, Reply, Request
from wire.problems import Kind
from wire.proofs import Opened, Purpose
from wire.versions import Version

HEARTBEAT = 20.0
"""Seconds between pings; a sidecar that answers none of them is gone."""
_FAREWELL = 2.0
"""Seconds that a session which we end may take to say so too."""
_SCHEME = "Proofbeat "


class SessionApi:
    """proven: told of the request that opened a session. greeting: what is said first, if anything."""

    def __init__(
        self,
        store: Store,
        instances: Instances,
        sessions: Sessions,
        answering: Answering,
        challenges: Challenges,
        proven: Callable[[web.Request], None],
        greeting: Callable[[Enrolled], Push | None],
    ) -> None:
        self._store = store
        self._instances = instances
        self._sessions = sessions
        self._answering = answering
        self._challenges = challenges
        self._proven = proven
        self._greeting = greeting

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/session", self._open)]

    async def _open(self, request: web.Request) -> web.StreamResponse:
        proof = request.headers.get("Authorization", "")
        if not proof.startswith(_SCHEME):
            return self._challenge()
        enrolled = await self._authenticated(proof.removeprefix(_SCHEME))
        self._proven(request)
        version = replies.version_of(request)
        socket = web.WebSocketResponse(
            timeout=_FAREWELL, heartbeat=HEARTBEAT, max_msg_size=messages.MOST_FRAME, compress=False
        )
        await socket.prepare(request)
        with self._sessions.opened(enrolled.instance, version) as session:
            if (greeting := self._greeting(enrolled)) is not None:
                session.push(greeting)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_deliver(session, socket))
                    await self._serve(enrolled, session, socket, version)
                    session.end_outbox()
            finally:
                await self._ended(enrolled, session)
        return socket

    def _challenge(self) -> web.Response:
        text = base64.urlsafe_b64encode(self._challenges.issue()).rstrip(b"=").decode()
        return web.Response(status=401, headers={"WWW-Authenticate": f'Proofbeat challenge="{text}"'})

    async def _authenticated(self, proof: str) -> Enrolled:
        """Raises Refused (proof-invalid, instance-unknown)."""
        try:
            opened = Opened(base64.b64decode(proof, altchars=b"-_", validate=True))
            hello = opened.claimed(Hello)
        except (binascii.Error, InvalidInput) as error:
            raise Refused("a proof that does not parse", kind=Kind.PROOF_INVALID, where="session") from error
        enrolled = await self._instances.get(hello.instance)
        opened.check(Purpose.SESSION, keys.from_der(enrolled.public_key))
        self._challenges.redeem(hello.challenge)
        return enrolled

    async def _serve(
        self, enrolled: Enrolled, session: Session, socket: web.WebSocketResponse, version: Version
    ) -> None:
        """Until the other side ends it, or says what is no message."""
        async for received in socket:
            try:
                frame = _frame(received.data if received.type is WSMsgType.BINARY else b"", version)
            except InvalidInput:
                await socket.close(code=WSCloseCode.PROTOCOL_ERROR)
                return
            reply = await self._reply(enrolled, cast(Request, frame.message))
            session.clean = isinstance(frame.message, Goodbye) and not isinstance(reply, problems.Problem)
            try:
                await socket.send_bytes(messages.encode(reply, frame.number, version=version))
            except ConnectionError:
                return  # it went away meanwhile, and will ask again

    async def _reply(self, enrolled: Enrolled, request: Request) -> Reply:
        try:
            return await self._answering.answer(enrolled.instance, request)
        except ProofbeatError as error:
            return problems.of(error)

    async def _ended(self, enrolled: Enrolled, session: Session) -> None:
        """A run that ended neither by goodbye nor by us re-enters by a full round."""
        if session.clean or session.ours:
            return
        try:
            await self._store.end_run(enrolled.instance, enrolled.thumbprint, clean=False)
        except Unavailable:
            return  # nothing was lost: enrolment sees that there was no goodbye
        self._instances.forget(enrolled.instance)


async def _deliver(session: Session, socket: web.WebSocketResponse) -> None:
    while (frame := await session.next()) is not None:
        try:
            await socket.send_bytes(frame)
        except ConnectionError:
            break
    await socket.close()


def _frame(data: bytes, version: Version) -> Frame:
    frame = messages.decode(data, version=version)
    if frame.number == messages.PUSH or not isinstance(frame.message, get_args(Request)):
        raise InvalidInput("no request", where="session")
    return frame
