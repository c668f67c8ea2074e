"""Programs that a command runs for itself: started in one place, ended in one place, and never by name."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attestation.errors import Unavailable

LogLine = Mapping[str, Any]

END_SECONDS = 3.0
_MOST_LAST_WORDS = 4096
"""Bytes of a log's end in which its last line is looked for."""


class Child:
    """One running program. log: all that it writes to stderr, and to stdout unless that goes elsewhere.

    kill: the signal that ends it for certain.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, kill: signal.Signals) -> None:
        self.name = name
        self.process = process
        self.log = log
        self._kill = kill

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    @property
    def outcome(self) -> str:
        """For people: how it ended, if it did."""
        code = self.process.returncode
        if code is None:
            return "still runs"
        if code < 0:
            return f"was ended by signal {-code} ({signal.strsignal(-code)})"
        return f"ended with exit code {code}"

    @property
    def last_words(self) -> str:
        """The last line of its log, so that nobody has to look for it; empty where it said nothing."""
        with self.log.open("rb") as log:
            log.seek(-min(_MOST_LAST_WORDS, log.seek(0, os.SEEK_END)), os.SEEK_END)
            lines = log.read().decode(errors="replace").splitlines()
        return _for_people(lines[-1]) if lines else ""

    async def line(self, within: float) -> str:
        """The next line of its stdout, which is to be a pipe. within: seconds. Raises Unavailable where none comes."""
        stdout = self.process.stdout
        try:
            async with asyncio.timeout(within):
                said = await stdout.readline() if stdout else b""
        except TimeoutError:
            said = b""
        if not said:
            raise self.failed("it says nothing any more")
        return said.decode().strip()

    def failed(self, what: str) -> Unavailable:
        """The error that says so, where its log is, and what that says last."""
        said = self.last_words
        return Unavailable(what, where=str(self.log), mend=f"It said last: {said}" if said else "")

    def send_signal(self, number: signal.Signals) -> None:
        if self.running:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.send_signal(self._kill)

    async def end(self) -> None:
        """SIGTERM, and what ends it for certain where it does not listen."""
        self.send_signal(signal.SIGCONT)
        self.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()

    async def end_with_all(self) -> None:
        """At once, with what it started and left in its process group: stopped or not, nothing of it stays."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            await self.process.wait()


def _for_people(line: str) -> str:
    """Of a JSON line what happened, and why."""
    try:
        said: LogLine = json.loads(line) if line.startswith("{") else {}
    except ValueError:  # its beginning is not among what was read
        said = {}
    return ": ".join(str(said[key]) for key in ("event", "why", "reason") if said.get(key)) or line


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
        also: Sequence[int] = (),
        kill: signal.Signals = signal.SIGKILL,
    ) -> Child:
        """heard: called with each JSON line on stderr. stdout, stderr: descriptors in the place of the log file's.

        also: descriptors that it is given. kill: as Child has it.
        """
        path = self._folder / f"{name}.log"
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=log.fileno() if stdout is None else stdout,
                stderr=asyncio.subprocess.PIPE if heard else log.fileno() if stderr is None else stderr,
                cwd=cwd,
                env={**os.environ, **environment} if environment else None,
                start_new_session=True,
                pass_fds=also,
            )
        child = Child(name, process, path, kill)
        self._all.append(child)
        if heard:
            self._tasks.create_task(self._listen(child, heard), name=f"log of {name}")
        return child

    @asynccontextmanager
    async def needing(self, *children: Child) -> AsyncIterator[None]:
        """The block is left as soon as one of them has ended. Raises Unavailable: which, how, and where its log is."""

        async def leave_after(child: Child) -> None:
            await child.process.wait()
            scope.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(None) as scope:
                watching = [self._tasks.create_task(leave_after(each), name=f"end of {each.name}") for each in children]
                try:
                    yield
                finally:
                    for each in watching:
                        each.cancel()
        except TimeoutError:
            ended = next((each for each in children if not each.running), None)
            if ended is None:
                raise
            raise ended.failed(f"the {ended.name} {ended.outcome}") from None

    async def end(self) -> None:
        """Ends all of them, last started first. Who is told to hurry in the middle of it kills what is left."""
        try:
            for child in reversed(self._all):
                if child.running:
                    await child.end()
        except asyncio.CancelledError:
            for child in self._all:
                child.kill()
            raise

    async def _listen(self, child: Child, heard: Callable[[LogLine], None]) -> None:
        stream = child.process.stderr
        if stream is None:
            return
        with child.log.open("ab") as log:
            while line := await stream.readline():
                log.write(line)
                log.flush()
                if line.startswith(b"{"):
                    heard(json.loads(line))
