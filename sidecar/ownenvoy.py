"""An Envoy that the sidecar runs itself: started once its key can be fetched, started again when it ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen

from attestation.errors import InvalidConfiguration, Unavailable
from sidecar import clock
from sidecar.service import ServiceSettings
from sidecar.supervision import Course, End, restart
from sidecar.telling import Telling
from xds.bootstrap import envoy_command
from xds.peer import Peer, has_ended

_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 4096
"""Bytes at the end of its output in which the reason of its end is looked for."""


@dataclass(frozen=True, slots=True)
class Launch:
    """program: the Envoy to run. confined: what a command becomes so that nobody of its user can look into it."""

    program: Path
    confined: Callable[[Sequence[str]], list[str]]


class OwnEnvoy:
    """One Envoy at a time."""

    def __init__(self, launch: Launch, service: ServiceSettings, telling: Telling) -> None:
        self._launch = launch
        self._service = service
        self._telling = telling
        self._running: tuple[int, int] | None = None
        self._condemned = False

    def is_it(self, peer: Peer) -> bool:
        """Is this the Envoy that runs now, and not one of an earlier run, nor anybody else?"""
        if self._running is None:
            return False
        pid, pidfd = self._running
        return peer.pid == pid and not has_ended(pidfd)

    def condemn(self) -> None:
        """Its end is wanted: a closing asks it to quit, or kills it."""
        self._condemned = True

    async def run(self) -> None:
        """Until cancelled; Envoy is dead then. Raises Unavailable, InvalidConfiguration where it cannot be started."""
        course, chance = Course(), random.SystemRandom()
        while True:
            end = await self._life_of_one()
            course, pause = restart(course, end, chance.random())
            self._telling.envoy_ended(end.why, pause, looping=course.looping)
            await asyncio.sleep(pause)

    async def _life_of_one(self) -> End:
        with _output(self._service.log) as output:
            began, self._condemned = clock.now().boot, False
            with self._start(output) as process, self._known(process) as pidfd:
                self._telling.envoy_started(process.pid)
                await _ended(pidfd)
                status = process.wait()
            return End(clock.now().boot - began, self._condemned, _reason(status, self._service.log))

    @contextmanager
    def _known(self, process: Popen[bytes]) -> Iterator[int]:
        """Its pidfd. It is waited for by us alone, so that its pid is nobody else's until then."""
        pidfd = os.pidfd_open(process.pid)
        self._running = (process.pid, pidfd)
        try:
            yield pidfd
        finally:
            self._running = None
            os.close(pidfd)

    @contextmanager
    def _start(self, output: int) -> Iterator[Popen[bytes]]:
        """Whoever fails or is cancelled within leaves no Envoy behind. Raises Unavailable."""
        command = envoy_command(
            self._launch.program, self._service.bootstrap, concurrency=self._service.concurrency, hot_restart=False
        )
        try:
            process = Popen(
                self._launch.confined(command),
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                start_new_session=True,  # a Ctrl-C is meant for us, and we close first
                preexec_fn=_ends_with_us(),
            )
        except OSError as error:
            raise Unavailable(
                f"Envoy cannot be started: {error.strerror}",
                where=str(self._launch.program),
                mend="Name another in delivery.service.envoy, or start it yourself, without --run-envoy.",
            ) from error
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def _output(log: Path | None) -> Iterator[int]:
    """A descriptor to write to: of the log file, or our own stderr. Raises InvalidConfiguration."""
    if log is None:
        yield sys.stderr.fileno()
        return
    try:
        file = log.open("ab")
    except OSError as error:
        raise InvalidConfiguration(
            f"Envoy's output cannot be written: {error.strerror}",
            where=f"delivery.service.log: {log}",
            mend="Name a file in a folder that the sidecar may write.",
        ) from error
    with file:
        yield file.fileno()


async def _ended(pidfd: int) -> None:
    """A pidfd becomes readable when its process ends (pidfd_open(2))."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)


def _ends_with_us() -> Callable[[], None]:
    """Has the kernel kill Envoy when we die (PR_SET_PDEATHSIG, prctl(2)), also before a guardian knows of it.

    An Envoy that outlived its sidecar would be a second client of the next one.
    """
    prctl, us = ctypes.CDLL(None).prctl, os.getpid()

    def promise() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != us:
            os._exit(1)

    return promise


def _reason(status: int, log: Path | None) -> str:
    how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    said = _last_words(log)
    return f"{how}; {said}" if said else f"{how}; what it said of it stands before this line"


def _last_words(log: Path | None) -> str:
    """The gravest of its last lines, empty where it writes to our stderr."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_WORDS))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return f"its output cannot be read: {error.strerror}"
    grave = [line for line in lines if "[critical]" in line or "[error]" in line]
    return (grave or lines or ["it said nothing"])[-1]
