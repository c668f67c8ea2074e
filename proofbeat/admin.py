"""The operator's way into a running authority: HTTP over its admin socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import aiohttp

from attestation import strictjson
from attestation.errors import InvalidInput, Unavailable
from attestation.plain import build
from authority.api.answers import Token
from wire import problems

_SECONDS = 10.0
T = TypeVar("T")


async def ask(socket: Path, method: str, path: str, shape: type[T], body: Mapping[str, object] | None = None) -> T:
    """The answer, which is exactly of this shape: one of authority/api/answers.py, or what it names.

    Raises what the problem document says, or Unavailable where nobody listens or the answer is of another shape.
    """
    try:
        return build(shape, strictjson.loads(await _said(socket, method, path, body)), path)
    except InvalidInput as error:
        raise Unavailable(
            f"the authority's answer is none that this release knows: {error.sentence}",
            where=str(socket),
            mend="Ask with the `proofbeat` that runs the authority.",
        ) from error


async def fetch(socket: Path, path: str) -> bytes:
    """The answer as it is. Raises as `ask`."""
    return await _said(socket, "GET", path, None)


async def create_token(socket: Path, registration: str, lifetime: str = "1h") -> str:
    """A join token for one instance of this registration."""
    made = await ask(socket, "POST", "/admin/tokens", Token, {"registration": registration, "lifetime": lifetime})
    return made.token


async def _said(socket: Path, method: str, path: str, body: Mapping[str, object] | None) -> bytes:
    connector = aiohttp.UnixConnector(path=str(socket))
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://authority{path}", json=body) as answer,
        ):
            said = await answer.read()
            if answer.status >= 400:
                raise problems.error_of(problems.from_json(said))
            return said
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(
            f"the authority does not answer: {_why(error)}",
            where=str(socket),
            mend="Start it with `proofbeat authority -c FILE`, and name the `admin` socket of that file. "
            "While it is away, each sidecar's log says why that one is closed (event `violation`).",
        ) from error


def _why(error: Exception) -> str:
    """In the kernel's words where it has some."""
    if isinstance(error, TimeoutError):
        return f"nothing came within {_SECONDS:g} s"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
