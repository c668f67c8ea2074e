"""The operator's way in: JSON over a Unix socket that only its owner can open."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from attestation import strictjson
from attestation.breakglass import Order
from attestation.digests import Digest
from attestation.errors import InvalidInput, Refused, Unavailable
from attestation.instance import InstanceId
from attestation.plain import plain
from attestation.quantities import seconds
from authority.api.answers import (
    Asked,
    DenialList,
    GlassBroken,
    GlassMended,
    GlassOrders,
    Instances,
    LatestCalls,
    LatestEvidence,
    PolicyFaults,
    Reloaded,
    SignedEvidence,
    Token,
)
from authority.breakglass import Applied
from authority.calling import InstanceCalls
from authority.latest import Told
from authority.rules import Ruling
from authority.store.records import InstanceState
from authority.why import Why
from policies.model.explaining import Explained, explained
from wire.messages import Denials, Released, Standing
from wire.problems import Kind

Answer = (
    Asked
    | DenialList
    | Explained
    | GlassBroken
    | GlassMended
    | GlassOrders
    | Instances
    | LatestCalls
    | LatestEvidence
    | PolicyFaults
    | Released
    | Reloaded
    | Standing
    | Token
    | Why
)


class Operations(Protocol):
    """What an operator can ask of an authority."""

    async def create_token(self, registration: str, *, lifetime: float = ...) -> str: ...
    async def quarantine(self, instance: InstanceId, cause: str) -> Standing: ...
    async def release(self, instance: InstanceId, causes: tuple[str, ...] | None = None) -> str: ...
    async def break_glass(self, text: str) -> Applied: ...
    async def end_break_glass(self, identity: str, why: str, registrations: Collection[str] = ...) -> Order: ...
    async def broken(self) -> GlassOrders: ...
    async def instances(self) -> tuple[InstanceState, ...]: ...
    def denials(self) -> Denials: ...
    async def why(self, asked: str, at: float | None = ...) -> Why: ...
    async def ruling(self, asked: str) -> Ruling: ...
    def evidence(self) -> tuple[Told, ...]: ...
    def calls(self, instance: InstanceId | None) -> tuple[InstanceCalls, ...]: ...
    def body(self, registration: str, digest: Digest) -> bytes | None: ...
    async def attest_now(self, instance: InstanceId) -> bool: ...
    async def reload_policies(self, *, strict: bool = ...) -> int: ...
    def faults(self) -> PolicyFaults: ...


class AdminApi:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/admin/tokens", self._tokens),
            web.post("/admin/quarantine", self._quarantine),
            web.post("/admin/release", self._release),
            web.post("/admin/breakglass", self._break_glass),
            web.post("/admin/breakglass/end", self._end_break_glass),
            web.get("/admin/breakglass", self._broken),
            web.post("/admin/attest", self._attest),
            web.post("/admin/policies", self._policies),
            web.get("/admin/faults", self._faults),
            web.get("/admin/instances", self._instances),
            web.get("/admin/why", self._why),
            web.get("/admin/denials", self._denials),
            web.get("/admin/policy", self._policy),
            web.get("/admin/evidence", self._evidence),
            web.get("/admin/calls", self._calls),
            web.get("/admin/body", self._body),
        ]

    async def _tokens(self, request: web.Request) -> web.Response:
        body = await _body(request, "registration", optional=("lifetime",))
        token = await self._operations.create_token(
            _text(body, "registration"), lifetime=seconds(_text(body, "lifetime", "1h"))
        )
        return _json(Token(token))

    async def _quarantine(self, request: web.Request) -> web.Response:
        body = await _body(request, "instance", "cause")
        standing = await self._operations.quarantine(InstanceId(_text(body, "instance")), _text(body, "cause"))
        return _json(standing)

    async def _release(self, request: web.Request) -> web.Response:
        body = await _body(request, "instance", optional=("causes",))
        named = None if body.get("causes") is None else _texts(body, "causes")
        order = await self._operations.release(InstanceId(_text(body, "instance")), named)
        return _json(Released(order))

    async def _break_glass(self, request: web.Request) -> web.Response:
        body = await _body(request, "order")
        return _json(GlassBroken.of(await self._operations.break_glass(_text(body, "order"))))

    async def _end_break_glass(self, request: web.Request) -> web.Response:
        body = await _body(request, "id", optional=("why", "registrations"))
        named, why = _texts(body, "registrations"), _text(body, "why", "an operator ended it")
        order = await self._operations.end_break_glass(_text(body, "id"), why, named)
        return _json(GlassMended(order.id, named))

    async def _broken(self, _: web.Request) -> web.Response:
        return _json(await self._operations.broken())

    async def _attest(self, request: web.Request) -> web.Response:
        body = await _body(request, "instance")
        return _json(Asked(await self._operations.attest_now(InstanceId(_text(body, "instance")))))

    async def _policies(self, request: web.Request) -> web.Response:
        epoch = await self._operations.reload_policies(strict="strict" in request.query)
        return _json(Reloaded(epoch, self._operations.faults()))

    async def _faults(self, _: web.Request) -> web.Response:
        return _json(self._operations.faults())

    async def _instances(self, _: web.Request) -> web.Response:
        return _json(Instances(await self._operations.instances()))

    async def _denials(self, _: web.Request) -> web.Response:
        return _json(DenialList.of(self._operations.denials()))

    async def _policy(self, request: web.Request) -> web.Response:
        """Each value that rules a registration, with its origin."""
        asked = request.query.get("of", "")
        if not asked:
            raise InvalidInput("nobody is named", where="policy", mend="Give a registration, or an instance.")
        return _json(explained((await self._operations.ruling(asked)).governing))

    async def _evidence(self, _: web.Request) -> web.Response:
        return _json(LatestEvidence(tuple(map(SignedEvidence.of, self._operations.evidence()))))

    async def _calls(self, request: web.Request) -> web.Response:
        asked = request.query.get("instance")
        return _json(LatestCalls(self._operations.calls(InstanceId(asked) if asked else None)))

    async def _body(self, request: web.Request) -> web.Response:
        registration, digest = request.query.get("registration", ""), request.query.get("digest", "")
        body = self._operations.body(registration, digest)
        if body is None:
            raise Refused(
                "this layer is not at hand",
                kind=Kind.NOT_FOUND,
                where="body",
                mend="The instance sends it again when it changes, or after the authority was started again.",
            )
        return web.Response(body=body)

    async def _why(self, request: web.Request) -> web.Response:
        asked, at = request.query.get("instance", ""), request.query.get("at")
        if not asked:
            raise InvalidInput("nobody is named", where="why", mend="Give an instance, or a registration.")
        try:
            moment = None if at is None else int(at) / 1000
        except ValueError as error:
            raise InvalidInput(f"{at!r} is no time", where="at", mend="Unix milliseconds.") from error
        return _json(await self._operations.why(asked, moment))


def bound_socket(path: Path) -> socket.socket:
    """A listening socket with mode 0600 from its first moment. Raises Unavailable when another one answers there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            _refuse_if_alive(path)
            path.unlink()
        os.fchmod(listener.fileno(), 0o600)  # Linux gives the file the mode that its socket has when it is bound
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"the admin socket cannot be bound: {error.strerror}", where=str(path), mend="Name another `admin` path."
        ) from error
    except Unavailable:
        listener.close()
        raise
    return listener


def _refuse_if_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise Unavailable("another authority serves this admin socket", where=str(path))


def _json(answer: Answer) -> web.Response:
    return web.json_response(plain(answer))


async def _body(request: web.Request, *required: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    try:
        body = strictjson.loads(await request.read())
    except InvalidInput as error:
        raise InvalidInput("the body is not JSON", where=request.path) from error
    if not isinstance(body, dict) or not set(required) <= body.keys() <= {*required, *optional}:
        known = ", ".join((*required, *optional))
        raise InvalidInput("missing or unknown fields", where=request.path, mend=f"Known here: {known}.")
    return body


def _text(body: dict[str, Any], name: str, default: str = "") -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is text", where=name)
    return value


def _texts(body: dict[str, Any], name: str) -> tuple[str, ...]:
    values = body.get(name, [])
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise InvalidInput(f"{name} is a list of names", where=name)
    return tuple(values)
