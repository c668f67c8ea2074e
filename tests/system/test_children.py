"""Programs that a command runs for itself: who needs one learns at once that it ended, how, and what it said last."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from attestation.errors import Unavailable
from proofbeat.ephemeral.children import Children


@asynccontextmanager
async def children(folder: Path) -> AsyncIterator[Children]:
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        made = Children(folder, tasks)
        try:
            yield made
        finally:
            await made.end()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo out of luck >&2; exit 3", "ended with exit code 3. It said last: out of luck"),
        ("exit 0", "ended with exit code 0"),
        ("kill -9 $$", "was ended by signal 9 (Killed)"),
        ("""echo '{"event": "round-failed", "why": "no way"}'; exit 1""", "said last: round-failed: no way"),
        ("printf '%05000d' 7; exit 1", "said last: 0000"),
    ],
)
def test_a_block_that_needs_a_program_is_left_when_it_ends_with_how_it_did_and_where_its_log_is(
    tmp_path: Path, script: str, said: str
) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as made:
            steady = await made.start("steady", ["sleep", "600"])
            failing = await made.start("failing", ["sh", "-c", script])
            with pytest.raises(Unavailable) as told:
                async with made.needing(steady, failing):
                    await asyncio.Event().wait()
            assert told.value.where == str(tmp_path / "failing.log")
            assert said in told.value.sentence
            assert steady.running

    asyncio.run(scenario())


def test_a_block_that_is_over_first_is_none_of_the_programs_business(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as made:
            sleeping = await made.start("sleeping", ["sleep", "600"])
            async with made.needing(sleeping):
                await asyncio.sleep(0)
            sleeping.send_signal(signal.SIGTERM)
            await sleeping.process.wait()

    asyncio.run(scenario())


def test_a_time_limit_within_the_block_is_not_taken_for_a_programs_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as made:
            sleeping = await made.start("sleeping", ["sleep", "600"])
            with pytest.raises(TimeoutError):
                async with made.needing(sleeping), asyncio.timeout(0.01):
                    await asyncio.Event().wait()

    asyncio.run(scenario())


def test_all_of_them_end_though_one_of_them_does_not_listen(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as made:
            deaf = await made.start(
                "deaf", ["sh", "-c", "trap '' TERM; echo ready; exec sleep 600"], stdout=asyncio.subprocess.PIPE
            )
            assert deaf.process.stdout is not None
            await deaf.process.stdout.readline()
            stopped = await made.start("stopped", ["sleep", "600"])
            stopped.send_signal(signal.SIGSTOP)
        assert not deaf.running
        assert not stopped.running

    asyncio.run(scenario())


def test_what_a_program_left_stopped_ends_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as made:
            script = "sleep 600 & kill -STOP $!; echo $!; wait"
            leaving = await made.start("leaving", ["sh", "-c", script], stdout=asyncio.subprocess.PIPE)
            left = os.pidfd_open(int(await leaving.line(5.0)))
            await leaving.end_with_all()
            ended, _, _ = select.select([left], [], [], 5.0)
            os.close(left)
            assert ended

    asyncio.run(scenario())
