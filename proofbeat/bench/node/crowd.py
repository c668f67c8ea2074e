"""Workloads, what measures them, and somebody who listens in place of each sidecar."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from attestation.channel import Beat, Calls, Message, Observed, Scope
from attestation.errors import Unavailable
from attestation.facts import ExecutionFact, FileFact
from proofbeat.ephemeral.clock import now
from sidecar.measurement import Measurer, Spawned, call, spawn

FILES = 100
WITHIN_SECONDS = 30.0
PROGRAM = os.path.realpath("/bin/true")
_OBEYS = """
import os, sys
for line in sys.stdin:
    program, _, path = line.strip().partition(" ")
    if program == "write":
        with open(path, "w") as file: file.write(str(os.urandom(8)))
    else:
        os.waitpid(os.posix_spawn(path, [path], {}), 0)
"""


class Workload:
    """A process that writes a file or starts a program when it is told to, and a folder with files of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for number in range(FILES):
            (folder / f"file{number}").write_text(str(number))
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _OBEYS], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def act(self, what: str, path: str) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write(f"{what} {path}\n")
            self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Listener:
    """Asks for one workload as a sidecar does, and hears what it is told."""

    def __init__(self, workload: Workload, spawned: Spawned, calls: Calls | None) -> None:
        self._calls = calls
        self.workload, self.pid = workload, spawned.pid
        self._measurer = Measurer(self._heard, self._lost)
        self._measurer.start(asyncio.get_running_loop(), spawned)
        self._observed = 0
        self._awaited: Callable[[Message], bool] = lambda _: False
        self._found: asyncio.Future[float] | None = None

    async def begin(self) -> None:
        """Until all layers are measured. Raises Unavailable."""
        pid, layers = self.workload.process.pid, 2 if self._calls is None else 3
        pidfd = os.pidfd_open(pid)
        self._measurer.send(Scope(pid, (str(self.workload.folder),), deadman=60.0, calls=self._calls), pidfd)
        os.close(pidfd)
        await self._until(lambda message: isinstance(message, Observed) and self._observed == layers)

    async def write_to_fact(self) -> float:
        """Milliseconds from telling it to write a file to the fact of it."""
        path = str(self.workload.folder / "file0")
        began = now()
        self.workload.act("write", path)
        at = await self._until(lambda message: isinstance(message, FileFact) and message.path == path)
        return (at - began) * 1000

    async def start_to_fact(self) -> float:
        """Milliseconds from telling it to start a program to the fact of it."""
        path = PROGRAM
        began = now()
        self.workload.act("start", path)
        at = await self._until(lambda message: isinstance(message, ExecutionFact) and message.path == path)
        return (at - began) * 1000

    def beat(self) -> None:
        self._measurer.send(Beat(1))

    def end(self) -> None:
        self._measurer.stop()

    async def _until(self, holds: Callable[[Message], bool]) -> float:
        self._awaited, self._found = holds, asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                return await self._found
        except TimeoutError as error:
            raise Unavailable("the measurer says nothing", where="bench node") from error

    def _heard(self, message: Message, _: bytes | None) -> None:
        self._observed += isinstance(message, Observed)
        if self._found is not None and not self._found.done() and self._awaited(message):
            self._found.set_result(now())

    def _lost(self, reason: str) -> None:
        if self._found is not None and not self._found.done():
            self._found.set_exception(Unavailable(f"the measurer is lost: {reason}", where="bench node"))


@asynccontextmanager
async def crowd(folder: Path, count: int, *, shared: bool, calls: Calls | None = None) -> AsyncIterator[list[Listener]]:
    """So many workloads, all measured. shared: by one measurer, else by one each. calls: how theirs are watched."""
    async with AsyncExitStack() as undo:
        node = undo.enter_context(_node(folder)) if shared else None
        listeners = []
        for number in range(count):
            workload = Workload(folder / f"workload{number}")
            undo.callback(workload.end)
            spawned = await _called(node) if node is not None else spawn()
            listener = Listener(workload, spawned, calls)
            undo.callback(listener.end)
            await listener.begin()
            listeners.append(listener)
        yield listeners


@contextmanager
def _node(folder: Path) -> Iterator[Path]:
    socket = folder / "measurer.sock"
    with ExitStack() as undo:
        command = [sys.executable, "-P", "-m", "measurer", "--listen", str(socket), f"--allow={os.geteuid()}:any"]
        process = subprocess.Popen(command, start_new_session=True)
        undo.callback(process.wait)
        undo.callback(process.terminate)
        yield socket


async def _called(socket: Path) -> Spawned:
    """Once it listens. Raises Unavailable."""
    end = now() + WITHIN_SECONDS
    while True:
        try:
            return call(socket, os.geteuid())
        except Unavailable:
            if now() > end:
                raise
            await asyncio.sleep(0.02)
