"""The service called through its own mesh, and what calls see while something foreign lies among its files."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import InvalidInput, Unavailable
from proofbeat.ephemeral.clock import now
from proofbeat.up.layout import Layout
from proofbeat.up.listening import Port

WITHIN_SECONDS = 15.0
PAUSE = 0.005
_CALL_SECONDS = 2.0
_STAYS_SECONDS = 0.1
_GET = b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"
_HTTP = b"HTTP/"
_FORBIDDEN, _PROBLEM, _PASSED_ON = b" 403 ", b"application/problem+json", b"\r\nx-envoy-upstream-service-time:"
_DENIED = b"rbac_access_denied_matched_policy["


@dataclass(frozen=True, slots=True)
class Tried:
    """Milliseconds: from a file laid down to the first refused call, and from taking it away to the first served."""

    closed_ms: float
    reopened_ms: float


async def close_and_open(layout: Layout, folder: str) -> Tried:
    """Lays a file into a measured folder, waits until calls are refused, and takes it away again.

    Raises Unavailable.
    """
    file = Path(folder) / f"proofbeat-{secrets.token_hex(4)}"
    laid = now()
    try:
        file.touch(exist_ok=False)
    except OSError as error:
        raise Unavailable(f"no file can be laid down there: {error.strerror}", where=folder) from error
    try:
        closed = await until_calls(layout, served=False)
    finally:
        file.unlink(missing_ok=True)
    taken = now()
    return Tried((closed - laid) * 1000, (await until_calls(layout, served=True) - taken) * 1000)


async def until_calls(layout: Layout, *, served: bool) -> float:
    """When a call first went so, CLOCK_BOOTTIME seconds. Raises Unavailable."""
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                if await call(layout) == served:
                    return now()
                await asyncio.sleep(PAUSE)
    except TimeoutError as error:
        wanted = "served" if served else "refused"
        mend = f"It has to answer within {_CALL_SECONDS:g} s." if served else "Is what was laid down volatile?"
        raise Unavailable(f"no call was {wanted} within {WITHIN_SECONDS:g} s", where=layout.url, mend=mend) from error


async def call(layout: Layout) -> bool:
    """One call on a connection of its own: did it get through? The service's own answer counts, whatever it is."""
    host, _, port = layout.calls.rpartition(":")
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_CALL_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            with contextlib.closing(writer):
                return await (_answered(reader, writer) if layout.protocol == "http" else _stays(reader))
    return False


async def refuse_other_protocols(port: Port) -> None:
    """Raises InvalidInput where a service answers a GET, and not in HTTP/1.1."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CALL_SECONDS):
            reader, writer = await asyncio.open_connection(port.host, port.number)
            with contextlib.closing(writer):
                writer.write(_GET)
                answer = await reader.read(len(_HTTP))
        if answer and not _HTTP.startswith(answer):
            raise InvalidInput(
                "your program does not answer in HTTP/1.1",
                where=str(port),
                mend="Say that it is called over TCP: --tcp",
            )


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Envoy counts the time of what it passes on, and of what it answers by itself it does not.

    What the Envoy at the other end denies is passed on as well: its body says whose denial it is.
    """
    writer.write(_GET)
    head = await reader.readuntil(b"\r\n\r\n")
    if _PASSED_ON not in head:
        return False
    status, _, _ = head.partition(b"\r\n")
    if _FORBIDDEN not in status or _PROBLEM not in head:
        return True
    with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        await reader.readuntil(_DENIED)
        return False
    return True


async def _stays(reader: asyncio.StreamReader) -> bool:
    """A connection that is refused, here or at the other end, is closed at once and without a word."""
    try:
        async with asyncio.timeout(_STAYS_SECONDS):
            return await reader.read(1) != b""
    except TimeoutError:
        return True
