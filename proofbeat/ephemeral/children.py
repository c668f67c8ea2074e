"""Programs that a command runs for itself: started in one place, ended in one place, and never by name."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

LogLine = Mapping[str, Any]

END_SECONDS = 3.0


class Child:
    """One running program. lines: told of each JSON log line of its stderr; all of stderr is kept in a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def send_signal(self, number: signal.Signals) -> None:
        if self.running:
            self.process.send_signal(number)

    async def end(self) -> None:
        """SIGTERM, and SIGKILL for what does not listen."""
        self.send_signal(signal.SIGCONT)
        self.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            await self.process.wait()


class Children:
    """Starts children and forgets none."""

    def __init__(self, folder: Path, tasks: asyncio.TaskGroup) -> None:
        self._folder = folder
        self._tasks = tasks
        self._all: list[Child] = []

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        heard: Callable[[LogLine], None] | None = None,
        stdin: int = asyncio.subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """heard: called with each JSON line on stderr. stdout, stderr: descriptors in the place of the log file's."""
        with (self._folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=log.fileno() if stdout is None else stdout,
                stderr=asyncio.subprocess.PIPE if heard else log.fileno() if stderr is None else stderr,
                cwd=cwd,
                env={**os.environ, **environment} if environment else None,
                start_new_session=True,
            )
        child = Child(name, process)
        self._all.append(child)
        if heard:
            self._tasks.create_task(self._listen(child, heard), name=f"log of {name}")
        return child

    async def end(self) -> None:
        """Ends all of them, last started first. Who is told to hurry in the middle of it kills what is left."""
        try:
            for child in reversed(self._all):
                if child.running:
                    await child.end()
        except asyncio.CancelledError:
            for child in self._all:
                child.send_signal(signal.SIGKILL)
            raise

    async def _listen(self, child: Child, heard: Callable[[LogLine], None]) -> None:
        stream = child.process.stderr
        if stream is None:
            return
        with (self._folder / f"{child.name}.log").open("ab") as log:
            while line := await stream.readline():
                log.write(line)
                log.flush()
                if line.startswith(b"{"):
                    heard(json.loads(line))
