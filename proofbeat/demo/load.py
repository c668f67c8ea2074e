"""Continuous traffic through both Envoys, every request timed by this process's own clock.

A process of its own, so that neither the telling of the story nor the authority shares its interpreter. Reads a
JSON list of flows on stdin's first line, writes one fixed-size record a request to stdout, ends when stdin closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import struct
import sys
from dataclasses import asdict, dataclass

from proofbeat.ephemeral.clock import now

RECORD = struct.Struct("<HBdd")
"""Flow number; 1 served, 0 refused; CLOCK_BOOTTIME seconds at which the request began and ended."""

ANSWER_SECONDS = 2.0
PAUSE = 0.002
"""Seconds between two requests of a flow."""
PAUSE_REFUSED = 0.004
BATCH = 0.01


@dataclass(frozen=True, slots=True)
class Flow:
    """One stream of requests. kind: `http` keeps its connection; `tcp` is one long stream of short messages.

    `hold` opens a connection and waits for its end: its records are refused ones, from opening to end.
    fresh: `tcp` with a new connection for each message. pause: seconds between two requests.
    """

    name: str
    kind: str
    address: str
    port: int
    fresh: bool = False
    pause: float = PAUSE


@dataclass(frozen=True, slots=True)
class Record:
    flow: int
    served: bool
    began: float
    ended: float


def pack(record: Record) -> bytes:
    return RECORD.pack(record.flow, record.served, record.began, record.ended)


def unpack(raw: bytes) -> Record:
    flow, served, began, ended = RECORD.unpack(raw)
    return Record(flow, bool(served), began, ended)


def dump(flows: list[Flow]) -> bytes:
    return json.dumps([asdict(flow) for flow in flows]).encode() + b"\n"


class _Connection:
    """One connection of a flow, opened when needed."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._sent = 0

    async def ask(self) -> bool:
        """One request; False when it was refused, cut, or never answered."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                served = await self._exchange()
        except (OSError, EOFError, TimeoutError, ValueError):
            served = False
            self.drop()
        if self._flow.fresh:
            self.drop()
        return served

    async def ended(self) -> None:
        """Until the other side, or the kernel, ends the connection."""
        if self._pair is not None:
            with contextlib.suppress(OSError):
                await self._pair[0].read()

    def drop(self) -> None:
        if self._pair is not None:
            self._pair[1].transport.abort()
            self._pair = None

    async def _exchange(self) -> bool:
        if self._pair is None:
            self._pair = await asyncio.open_connection(self._flow.address, self._flow.port)
        reader, writer = self._pair
        if self._flow.kind != "http":
            self._sent += 1
            message = b"%08d" % self._sent
            writer.write(message)
            return await reader.readexactly(len(message)) == message
        writer.write(b"GET /index.html HTTP/1.1\r\nhost: demo\r\n\r\n")
        status = await reader.readline()
        if not status:
            raise EOFError
        length = 0
        while header := (await reader.readline()).strip():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        await reader.readexactly(length)
        return status.split()[1] == b"200"


async def _tell(records: list[bytes], out: io.FileIO) -> None:
    """Hands on what was recorded, in batches: the clock is read at the request, not here."""
    while True:
        await asyncio.sleep(BATCH)
        out.write(b"".join(records))
        records.clear()


async def _hold(number: int, flow: Flow, records: list[bytes]) -> None:
    connection = _Connection(flow)
    while True:
        began = now()
        if await connection.ask():
            await connection.ended()
            records.append(pack(Record(number, False, began, now())))
        connection.drop()
        await asyncio.sleep(flow.pause)


async def _drive(number: int, flow: Flow, records: list[bytes]) -> None:
    connection = _Connection(flow)
    while True:
        began = now()
        served = await connection.ask()
        records.append(pack(Record(number, served, began, now())))
        await asyncio.sleep(flow.pause if served else max(flow.pause, PAUSE_REFUSED))


async def _main() -> None:
    flows = [Flow(**each) for each in json.loads(sys.stdin.buffer.readline())]
    loop = asyncio.get_running_loop()
    closed = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(closed), sys.stdin)
    out = io.FileIO(sys.stdout.fileno(), "w", closefd=False)
    async with asyncio.TaskGroup() as tasks:
        records: list[bytes] = []
        driving = [
            tasks.create_task((_hold if flow.kind == "hold" else _drive)(number, flow, records))
            for number, flow in enumerate(flows)
        ]
        driving.append(tasks.create_task(_tell(records, out)))
        await closed.read()
        for each in driving:
            each.cancel()


if __name__ == "__main__":
    asyncio.run(_main())
