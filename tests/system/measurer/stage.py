"""A stand-in sidecar that spawns the real measurer, and small real workloads for it to measure."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pytest

from attestation import channel as words
from attestation.channel import Beat, Covered, Fault, Guard, Measure, Message, Observed, Pinned, Scope, Sweep, Swept
from attestation.layers import Layer, Method

M = TypeVar("M", bound=Message)
ROOT = Path(__file__).resolve().parents[3]
SLOWER = float(os.environ.get("SLOWER", "1"))
"""How many times slower than a usual machine this one is: an emulated one is (tools/arm64.py)."""
PATIENCE = 10.0 * SLOWER

SERVER = """
import os, subprocess, sys
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
"""A workload that does what it is told, a line of Python at a time."""


class Workload:
    """A process whose acts the test dictates. first: command put before the interpreter, e.g. setpriv.

    also: descriptors that it is given.
    """

    def __init__(self, first: Sequence[str] = (), python: str = sys.executable, also: Sequence[int] = ()) -> None:
        self.process = subprocess.Popen(
            [*first, python, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
            pass_fds=also,
        )
        self.do("pass")

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def do(self, line: str) -> None:
        """Have a line executed and wait until it is."""
        self.begin(line)
        self.done()

    def done(self) -> None:
        """Wait until what it began is over."""
        assert self.process.stdout
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@contextmanager
def cgroup() -> Iterator[Path]:
    """One of version 2, empty, until the block ends. Skips where there is none."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    if not mounts:
        pytest.skip("needs a cgroup2 mount")
    made = Path(mounts[0][4], f"scope-{os.getpid()}")
    made.mkdir()
    yield made
    made.rmdir()


class Proxy(Workload):
    """A stand-in for Envoy: holds connections to us, as a server and as a client, over both families."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.do("import socket; kept = []")

    def connect(self, count: int) -> None:
        """Have it open so many connections to us."""
        port = self.listener.getsockname()[1]
        self.begin(f"kept += [socket.create_connection(('127.0.0.1', {port})) for _ in range({count})]")
        self.held += [self.listener.accept()[0] for _ in range(count)]
        self.done()

    def accept(self, count: int, family: socket.AddressFamily, address: str, folder: Path) -> None:
        """Have it accept so many connections from us."""
        self.do(
            f"server = socket.create_server(('{address}', 0), family={int(family)}, backlog=512); kept.append(server)"
        )
        self.do(f"open('{folder}/port', 'w').write(str(server.getsockname()[1]))")
        port = int((folder / "port").read_text())
        self.begin(f"kept += [server.accept()[0] for _ in range({count})]")
        self.held += [socket.create_connection((address, port)) for _ in range(count)]
        self.done()

    def end(self) -> None:
        super().end()
        for each in (*self.held, self.listener):
            each.close()


@dataclass(frozen=True)
class User:
    """Whom a program runs as: what comes before the interpreter, which one, and where it finds our sources."""

    first: tuple[str, ...] = ()
    python: str = sys.executable
    sources: Path = ROOT

    @classmethod
    def ordinary(cls, folder: Path) -> User:
        """Nobody, with our sources moved to where anybody may read them: a checkout may lie in a closed home.

        Raises AssertionError where no Python 3.11 or newer is open to everybody.
        """
        folder.chmod(0o755)
        for room in ("attestation", "measurer"):
            shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
        first = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        modern = "import sys; sys.exit(sys.version_info < (3, 11))"
        for python in (str(Path(sys.executable).resolve()), "/usr/bin/python3", "/usr/local/bin/python3"):
            # By a shell: setpriv itself still holds the rights of root when it executes a program.
            tried = subprocess.run([*first, "sh", "-c", f"{python} -c '{modern}'"], capture_output=True, check=False)
            if tried.returncode == 0:
                return cls(first, python, folder)
        raise AssertionError("no Python 3.11 that an ordinary user may run: apt-get install python3")

    def workload(self) -> Workload:
        return Workload(self.first, self.python)

    def sidecar(self, scope: Scope) -> Sidecar:
        return Sidecar(scope, self.first, self.python, self.sources)


@dataclass
class Sidecar:
    """Our end of the channel and the measurer at the other."""

    scope: Scope
    first: Sequence[str] = ()
    python: str = sys.executable
    sources: Path = ROOT
    inbox: list[tuple[Message, bytes | None]] = field(default_factory=list)

    def __enter__(self) -> Sidecar:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = self.spawn(theirs.fileno())
        theirs.close()
        self.send(self.scope)
        return self

    def spawn(self, channel: int) -> subprocess.Popen[bytes]:
        """The measurer, with its end of the channel."""
        return subprocess.Popen(
            [*self.first, self.python, "-m", "measurer", "--channel", str(channel)],
            pass_fds=[channel],
            cwd=self.sources,
            start_new_session=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        try:
            self.process.wait(5 * SLOWER)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def send(self, message: Message, descriptor: int | None = None) -> None:
        if descriptor is None:
            self.socket.send(words.encode(message))
        else:
            socket.send_fds(self.socket, [words.encode(message)], [descriptor])

    def receive(self, seconds: float) -> tuple[Message, bytes | None] | None:
        """The next message and the bytes of its body; None when none came in time."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if not poll.poll(max(0.0, seconds) * 1000):
            return None
        datagram, descriptors, _, _ = socket.recv_fds(self.socket, words.MOST_BYTES, 1)
        if not datagram:
            raise EOFError("the measurer hung up")
        body = None
        for each in descriptors:
            with open(each, "rb") as file:
                file.seek(0)
                body = file.read()
        return words.decode(datagram), body

    def expect(self, kind: type[M], matching: Callable[[M], bool] = lambda _: True, seconds: float = PATIENCE) -> M:
        """Wait for a message of this kind that matches; what comes before it stays in the inbox."""
        return self.expect_with_body(kind, matching, seconds)[0]

    def expect_with_body(
        self, kind: type[M], matching: Callable[[M], bool] = lambda _: True, seconds: float = PATIENCE
    ) -> tuple[M, bytes | None]:
        end = time.monotonic() + seconds
        while True:
            received = self.receive(end - time.monotonic())
            if received is None:
                last = [message for message, _ in self.inbox[-4:]]
                raise AssertionError(f"no such {kind.__name__} in {seconds} s; last came {last}")
            self.inbox.append(received)
            message, body = received
            if isinstance(message, Fault) and kind is not Fault:
                raise AssertionError(message)
            if isinstance(message, kind) and matching(message):
                return message, body

    def seen(self, kind: type[M]) -> list[M]:
        return [message for message, _ in self.inbox if isinstance(message, kind)]

    def settle(self) -> tuple[Pinned, Covered]:
        """Wait for the answers to Scope and the first observation of both layers."""
        pinned, covered = self.expect(Pinned), self.expect(Covered)
        missing = {Layer.FILES, Layer.PROCESSES}
        while missing:
            missing.discard(self.expect(Observed).observation.layer)
        return pinned, covered

    def files(self, *, full: bool = False) -> tuple[Observed, bytes | None]:
        """Have the files measured now; observations that follow events in between are passed over."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.send(Measure((Layer.FILES,), now, full))
        return self.expect_with_body(
            Observed,
            lambda each: (
                each.observation.layer is Layer.FILES
                and each.observation.method is not Method.EVENT
                and each.observation.began >= now
            ),
        )

    def guard(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self.send(Guard(pid), pidfd)
        os.close(pidfd)

    def sweep(self, number: int = 1) -> Swept:
        self.send(Sweep(number))
        return self.expect(Swept, lambda each: each.number == number)

    def beat(self, number: int = 1) -> None:
        self.send(Beat(number))
