"""Who may speak to the server, and that nothing is left of whoever may not or is gone."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.unit.xds.stage import Stage, descriptors, secret, serving
from xds.admission import Refusal
from xds.peer import Peer
from xds.snapshot import Snapshot


def test_a_refused_user_gets_no_byte_and_is_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, uids=frozenset({os.getuid() + 1})) as at:
            before = descriptors()
            await hung_up_on(at)
            assert descriptors() == before
            ((peer, refusal),) = at.refusals
            assert peer is not None
            assert peer.pid == os.getpid()
            assert f"user {os.getuid()} may not connect" in refusal.reason

    asyncio.run(scenario())


def test_the_caller_s_own_rule_can_refuse(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, admit=lambda peer: Refusal(f"not {peer.executable}")) as at:
            await hung_up_on(at)
            ((_, refusal),) = at.refusals
            assert refusal.reason.startswith("not /")

    asyncio.run(scenario())


def test_a_rule_that_fails_refuses(tmp_path: Path) -> None:
    def fail(peer: Peer) -> Refusal | None:
        raise RuntimeError(f"cannot judge {peer.pid}")

    async def scenario() -> None:
        failures: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(str(context.get("exception"))))
        async with serving(tmp_path, admit=fail) as at:
            before = descriptors()
            await hung_up_on(at)
            assert failures == [f"cannot judge {os.getpid()}"]
            assert descriptors() == before

    asyncio.run(scenario())


async def hung_up_on(at: Stage) -> None:
    """A client connects, is told nothing and loses the connection."""
    client = await at.connect()
    await client.until(lambda: client.hung_up)
    assert at.server.client is None


def test_a_descendant_that_holds_the_socket_of_an_ended_client_gets_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as at:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _FORK_AND_END, str(at.path), stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert output == b"closed"
            assert at.server.client is None

    asyncio.run(scenario())


_FORK_AND_END = """
import os, select, socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(10)
client.connect(sys.argv[1])
greeting = client.recv(1000)
parent = os.pidfd_open(os.getpid())
if os.fork():
    os._exit(0)
select.select([parent], [], [], 10)
client.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
try:
    print("served" if client.recv(1000) else "closed", end="")
except ConnectionError:
    print("closed", end="")
"""


def test_no_descriptor_outlives_its_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, secret("a", b"1")) as at:
            counts = []
            for _ in range(3):
                client = await at.connect()
                await client.subscribed("a")
                at.server.publish(at.server.snapshot)
                client.transport.abort()
                publication = at.server.publish(Snapshot.of(secret("a", os.urandom(4))))
                await publication.acknowledged(5)
                counts.append(descriptors())
            assert len(set(counts)) == 1

    asyncio.run(scenario())
