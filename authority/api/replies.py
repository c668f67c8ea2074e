"""HTTP answers: a message as CBOR, an error as a problem document."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from attestation.errors import ProofbeatError, Refused
from wire import messages, problems, versions
from wire.messages import Reply
from wire.problems import Kind, Problem
from wire.versions import Version


def message(reply: Reply, version: Version) -> web.Response:
    return web.Response(body=messages.encode(reply, version=version), content_type=messages.MEDIA_TYPE)


def problem(document: Problem) -> web.Response:
    return web.Response(status=document.status, body=problems.to_json(document), content_type=problems.MEDIA_TYPE)


def version_of(request: web.Request) -> Version:
    """What is spoken with whoever sent this. Raises Refused (version-unsupported), and InvalidInput."""
    return versions.agreed(versions.read(request.headers.get(versions.HEADER)))


@web.middleware
async def in_version(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer says which version was chosen; without one in common the answer is a problem."""
    try:
        version = version_of(request)
    except ProofbeatError as error:
        return problem(problems.of(error))
    response = await handler(request)
    response.headers[versions.HEADER] = str(version)
    return response


@web.middleware
async def as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal, our own and the server's, leaves as RFC 9457. What is no refusal is a fault: status 500."""
    try:
        return await handler(request)
    except ProofbeatError as error:
        return problem(problems.of(error))
    except web.HTTPException as error:
        kind = {404: Kind.NOT_FOUND, 405: Kind.NOT_FOUND, 413: Kind.TOO_LARGE}.get(error.status, Kind.MALFORMED)
        return problem(problems.of(Refused(error.reason, kind=kind, where=request.path)))
