"""`python -m tests.system.attacks.proxy SOCKET`: stands in for Envoy. Takes the key, acknowledges, tells what it has.

A line for each certificate on stdout: the SPIFFE ID in it, `poison` where it has none. A line on stdin is Python to
run.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from cryptography import x509

from tests.unit.xds.grpc_client import SocketClient

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)


def _named(body: bytes) -> str:
    (first, *_) = _CERTIFICATE.findall(body)
    try:
        names = x509.load_pem_x509_certificate(first).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return "poison"
    return next((each for each in names.value.get_values_for_type(x509.UniformResourceIdentifier)), "poison")


async def _serve(path: Path) -> None:
    asyncio.get_running_loop().add_reader(sys.stdin, _obey)
    client = await SocketClient.connect(path)
    stream, _ = await client.subscribed("default")
    count = 0
    while not client.hung_up:
        for told in client.grpc.streams[stream].told()[count:]:
            count += 1
            for body in told.bodies:
                sys.stdout.write(_named(body) + "\n")
                sys.stdout.flush()
            client.answer(stream, told)
        with suppress(TimeoutError):
            await client.until(partial(_has_news, client, stream, count))
    await asyncio.Event().wait()  # as Envoy does, it goes on with what it has


def _has_news(client: SocketClient, stream: int, count: int) -> bool:
    return client.hung_up or len(client.grpc.streams[stream].messages) > count


def _obey() -> None:
    exec(sys.stdin.readline(), globals())  # noqa: S102 - a test's own words


if __name__ == "__main__":
    place = Path(sys.argv[1])
    while not place.exists():  # another process makes it, which has no event for us
        time.sleep(0.005)
    asyncio.run(_serve(place))
