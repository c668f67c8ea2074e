"""The endpoints for one request at a time: enrolment, and what a session does where none can be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast, get_args

from aiohttp import web

from attestation import keys
from attestation.errors import InvalidInput
from authority.api import replies
from authority.api.answering import Answering
from authority.doors import Intake
from authority.enrolment import Enrolments
from authority.instances import Instances
from authority.sessions import Sessions
from wire import messages
from wire.messages import AskHold, Noted, Placed, Posted, Request
from wire.proofs import Opened, Purpose
from wire.versions import Version

_MOST_SMALL = 16 * 1024
"""Everything but a round, which carries layers, fits into this."""
PATHS = ("/v1/challenge", "/v1/attest", "/v1/report", "/v1/policy", "/v1/denials", "/v1/reachable", "/v1/goodbye")


class Posts:
    """bundle: the SPIFFE bundle document as it is now."""

    def __init__(
        self,
        enrolments: Enrolments,
        instances: Instances,
        sessions: Sessions,
        answering: Answering,
        bundle: Callable[[], bytes],
        intake: Intake,
    ) -> None:
        self._enrolments = enrolments
        self._instances = instances
        self._sessions = sessions
        self._answering = answering
        self._bundle = bundle
        self._intake = intake

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/enroll", self._enrol),
            web.get("/v1/bundle", self._serve_bundle),
            *(web.post(path, self._post) for path in PATHS),
        ]

    async def _enrol(self, request: web.Request) -> web.Response:
        enrolment, instance = await self._enrolments.enrol(await self._intake.body(request, _MOST_SMALL))
        # Whoever still speaks for this instance does so with the key it had before.
        self._sessions.end(instance)
        return replies.message(enrolment, replies.version_of(request))

    async def _post(self, request: web.Request) -> web.Response:
        most = messages.MOST_FRAME if request.path == "/v1/attest" else _MOST_SMALL
        version, opened = replies.version_of(request), Opened(await self._intake.body(request, most))
        posted = opened.claimed(Posted)
        enrolled = await self._instances.get(posted.instance)
        opened.check(Purpose.POST, keys.from_der(enrolled.public_key))
        reply = await self._answering.answer(posted.instance, asked(posted.request, version))
        return replies.message(reply, version)

    async def _serve_bundle(self, _: web.Request) -> web.Response:
        return web.Response(body=self._bundle(), content_type="application/json")


def asked(frame: bytes, version: Version) -> Request:
    """Raises InvalidInput for a message that is no request, or one that only a session can make."""
    message = messages.decode(frame, version=version).message
    if isinstance(message, AskHold):
        raise InvalidInput("a hold is asked for on a session, where its end is told", where="wire")
    if isinstance(message, Placed | Noted):
        raise InvalidInput(f"a {type(message).__name__} is of a session", where="wire")
    if not isinstance(message, get_args(Request)):
        raise InvalidInput(f"a {type(message).__name__}, which is no request", where="wire")
    return cast(Request, message)
