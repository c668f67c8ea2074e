"""In Envoy's place: a process that fetches its secret, acknowledges it, and prints what it was served and when.

python -m tests.system.hostile.envoy SOCKET
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.unit.xds.grpc_client import SocketClient
from xds.messages import SECRET, message_classes

CERTIFICATE = "default"


def _print(body: bytes) -> None:
    secret = message_classes()[SECRET].FromString(body)
    pem = secret.tls_certificate.certificate_chain.inline_bytes
    leaf = x509.load_pem_x509_certificates(pem)[0]
    poison = leaf.issuer == leaf.subject
    line = {
        "at": time.clock_gettime(time.CLOCK_BOOTTIME),
        "leaf": None if poison else leaf.fingerprint(hashes.SHA256()).hex(),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def fetch(path: Path) -> None:
    client = await SocketClient.connect(path)
    stream, told = await client.subscribed(CERTIFICATE)
    count = 1
    while True:
        for body in told.bodies:
            _print(body)
        client.answer(stream, told)
        count += 1
        await _until(client, partial(_has_come, client, stream, count))
        if client.hung_up:
            return
        told = client.grpc.streams[stream].told()[count - 1]


def _has_come(client: SocketClient, stream: int, count: int) -> bool:
    return len(client.grpc.streams[stream].messages) >= count


async def _until(client: SocketClient, happened: Callable[[], bool]) -> None:
    """However long it takes, or until the other side is gone."""
    while not client.hung_up and not happened():
        with contextlib.suppress(TimeoutError):
            await client.until(lambda: client.hung_up or happened())


if __name__ == "__main__":
    asyncio.run(fetch(Path(sys.argv[1])))
