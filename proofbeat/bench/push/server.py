"""Our xDS server with one secret, as a process of its own that rotates it on demand.

Usage: python -m proofbeat.bench.push.server SOCKET STREAMS. It holds the conversation of tools/peers/xds/serve.go:
says "listening", says "ready" once every stream has acknowledged the first version, and for each line with a number
on stdin rotates so many times, one after the other, and tells what that took. It ends with its stdin.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path

from attestation.errors import Unavailable
from xds.acks import Verdict
from xds.admission import Admission
from xds.listening import Endpoint
from xds.resources.secrets import tls_certificate
from xds.server import Server
from xds.snapshot import Snapshot

SECRET = "workload"  # noqa: S105 - the name of one
CHAIN_BYTES, KEY_BYTES = 1100, 300
"""The size of a short chain and its key; nobody here looks into them."""
WITHIN_SECONDS = 30.0


class Rotating:
    """The one secret, and who has acknowledged it. Times are milliseconds."""

    def __init__(self, socket: Path, streams: int) -> None:
        self._streams = streams
        self._version = 0
        self._first: set[object] = set()
        self.ready = asyncio.Event()
        admission = Admission(uids=frozenset({os.geteuid()}))
        self.server = Server(Endpoint(socket), admission, on_verdict=self._heard)
        self.server.publish(_secret(self._version))

    async def rotate(self, times: int) -> dict[str, object]:
        """One stretch, as it is told. Raises Unavailable where a stream does not acknowledge."""
        before = _cpu_seconds()
        took = [await self._once() for _ in range(times)]
        return {"rotations_ms": took, "cpu_seconds": _cpu_seconds() - before}

    async def _once(self) -> float:
        began = time.perf_counter()
        self._version += 1
        settlement = await self.server.publish(_secret(self._version)).acknowledged(WITHIN_SECONDS)
        if len(settlement.accepted) != self._streams:
            raise Unavailable(
                f"{len(settlement.accepted)} of {self._streams} streams acknowledged version {self._version}",
                where="bench xds-push, our server",
            )
        return (time.perf_counter() - began) * 1000

    def _heard(self, verdict: Verdict) -> None:
        if not self.ready.is_set():
            self._first.add(verdict.stream)
            if len(self._first) == self._streams:
                self.ready.set()


def _secret(version: int) -> Snapshot:
    chain = b"%08d" % version
    return Snapshot.of(tls_certificate(SECRET, chain.ljust(CHAIN_BYTES, b"c"), b"k" * KEY_BYTES))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _main(socket: Path, streams: int) -> None:
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    rotating = Rotating(socket, streams)
    async with rotating.server:
        print("listening", flush=True)
        await rotating.ready.wait()
        print("ready", flush=True)
        while order := await orders.readline():
            print(json.dumps(await rotating.rotate(int(order))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2])))
