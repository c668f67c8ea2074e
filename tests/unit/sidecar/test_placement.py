"""Coming back to the node's measurer."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from attestation.errors import ProofbeatError, Unavailable
from sidecar.config import MeasurerSettings
from sidecar.measurement import Spawned, call
from sidecar.placement import Placement

OURS = os.geteuid()


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_a_lost_measurer_is_called_until_somebody_answers(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    failures: list[ProofbeatError] = []

    async def play() -> Spawned:
        back: asyncio.Future[Spawned] = asyncio.get_running_loop().create_future()
        settings = MeasurerSettings(placement="node", socket=path, uid=OURS)
        answering: list[socket.socket] = []

        def failed(error: ProofbeatError) -> None:
            failures.append(error)
            if len(failures) == 2:
                answering.append(listen(path))

        placement = Placement(settings, None, came_back=back.set_result, failed=failed)
        placement.lost()
        assert placement.looks
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(placement.run())
            found = await back
            running.cancel()
        assert not placement.looks
        answering[0].close()
        return found

    found = asyncio.run(play())
    assert (found.process, found.pid) == (None, os.getpid())
    found.dismiss()
    assert len(failures) == 2


def test_only_the_process_of_the_right_user_is_called(tmp_path: Path) -> None:
    with listen(tmp_path / "m.sock"):
        call(tmp_path / "m.sock", OURS).dismiss()
        with pytest.raises(Unavailable) as raised:
            call(tmp_path / "m.sock", OURS + 1)
    assert f"user {OURS} listens there" in raised.value.what


def test_a_measurer_that_is_our_own_does_not_come_back(tmp_path: Path) -> None:
    async def play() -> bool:
        return Placement(MeasurerSettings(), None, came_back=lambda _: None, failed=lambda _: None).comes_back

    assert not asyncio.run(play())
