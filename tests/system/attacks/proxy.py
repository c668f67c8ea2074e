"""`python -m tests.system.attacks.proxy SOCKET`: stands in for Envoy. Takes the key, acknowledges, tells what it has.

A line a certificate on stdout: the digest of what the secret `default` now is. A line on stdin is Python to run.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

from tests.unit.xds.grpc_client import SocketClient


async def _run(path: Path) -> None:
    client = await SocketClient.connect(path)
    stream, told = await client.subscribed("default")
    count = 1
    while True:
        for body in told.bodies:
            sys.stdout.write(hashlib.sha256(body).hexdigest() + "\n")
            sys.stdout.flush()
        client.answer(stream, told)
        count += 1
        told = await client.told(stream, count)


async def _until_hung_up(path: Path) -> None:
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: exec(sys.stdin.readline(), globals()))  # noqa: S102 - a test's own words
    await _run(path)


if __name__ == "__main__":
    asyncio.run(_until_hung_up(Path(sys.argv[1])))
