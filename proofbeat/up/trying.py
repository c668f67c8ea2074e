"""The service called through its own mesh, and what calls see while something foreign lies among its files."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import Unavailable
from proofbeat.ephemeral.clock import now
from proofbeat.up.layout import Layout

WITHIN_SECONDS = 15.0
_CALL_SECONDS = 2.0
PAUSE = 0.005
_UNREACHED, _DENIAL = b"503", b"application/problem+json"
"""What Envoy answers while the service closes or opens: in between its listeners are gone, and nobody answers."""


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
    file.touch(exist_ok=False)
    try:
        closed = await until_calls(layout, served=False)
    finally:
        file.unlink()
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
        raise Unavailable(f"no call was {wanted} within {WITHIN_SECONDS:g} s", where=layout.url) from error


async def call(layout: Layout) -> bool:
    """One call on a connection of its own: was it served? An answer that is the service's own counts, errors too."""
    host, _, port = layout.calls.rpartition(":")
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_CALL_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            with contextlib.closing(writer):
                return await _answered(reader, writer) if layout.protocol == "http" else True
    return False


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split(None, 2)[1] != _UNREACHED and _DENIAL not in head
