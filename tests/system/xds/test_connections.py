"""A real Envoy comes back after the server, and nobody else gets in."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.system.xds.rig import Events, application, call_once, describe, envoy, make_server, until
from tests.system.xds.sds import Scene, filters, identity, played
from xds.snapshot import Snapshot

STREAMS = 4  # two secrets, two filters
_CONNECT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.settimeout(10)
print(len(client.recv(100)))
"""


def test_envoy_reconnects_to_a_restarted_server_and_is_sent_only_what_changed(tmp_path: Path) -> None:
    snapshot = Snapshot.of(*identity(), *filters())

    async def scenario() -> None:
        path, after = tmp_path / "xds.sock", Events()
        async with application() as app:
            first = make_server(path, Events())
            await first.start()
            first.publish(snapshot)
            async with envoy(describe(tmp_path, app), tmp_path) as proxy:
                await proxy.until_ready()
                await first.close()
                renewed, _ = identity()
                async with make_server(path, after) as second:
                    second.publish(snapshot.replacing(renewed))
                    await after.accepted("default")
                    await until(lambda: second.streams == STREAMS)
                    assert {n for v in after.verdicts for n in v.resources} == {"default"}
                    assert (await call_once(proxy.outbound)).status == 200

    asyncio.run(scenario())


def test_a_second_client_process_is_refused_and_reported_until_the_first_has_ended(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        path = tmp_path / "xds.sock"
        assert at.server.client is not None
        assert at.server.client.pid == at.proxy.process.pid
        assert await bytes_received(path) == 0
        ((peer, refusal),) = at.events.refusals
        assert peer is not None
        assert peer.pid != at.proxy.process.pid
        assert f"process {at.proxy.process.pid}" in refusal.reason
        assert (await call_once(at.proxy.outbound)).status == 200, "the first client is not disturbed"
        at.proxy.process.kill()
        await at.proxy.process.wait()
        assert at.server.client is None
        assert await bytes_received(path) > 0, "the seat is free once its holder has ended"

    played(tmp_path, story, *identity(), *filters())


async def bytes_received(path: Path) -> int:
    """What another process is sent when it connects: a server's greeting, or nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CONNECT, str(path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return int(output)
