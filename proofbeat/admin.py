"""The operator's way into a running authority: HTTP over its admin socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp

from attestation.errors import InvalidInput, Unavailable
from wire import problems

_SECONDS = 10.0


async def ask(socket: Path, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The answer's JSON. Raises what the problem document says, or Unavailable when nobody listens there."""
    content = await _answer(socket, method, path, body)
    try:
        return json.loads(content)
    except ValueError as error:
        raise InvalidInput("what answers there is no authority", where=str(socket)) from error


async def fetch(socket: Path, path: str) -> bytes:
    """The answer as it is. Raises as `ask`."""
    return await _answer(socket, "GET", path)


async def _answer(socket: Path, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    connector = aiohttp.UnixConnector(path=str(socket))
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://authority{path}", json=body) as answer,
        ):
            content = await answer.read()
            if answer.status >= 400:
                raise problems.error_of(problems.from_json(content))
            return content
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(
            f"the authority does not answer: {error}",
            where=str(socket),
            mend="Start it with `proofbeat authority -c FILE`, and name the `admin` socket of that file. "
            "While it is away, each sidecar's log says why that one is closed (event `violation`).",
        ) from error


async def create_token(socket: Path, registration: str, lifetime: str = "1h") -> str:
    """A join token for one instance of this registration."""
    answer = await ask(socket, "POST", "/admin/tokens", {"registration": registration, "lifetime": lifetime})
    if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
        raise InvalidInput("an answer without a token", where=str(socket))
    return str(answer["token"])
