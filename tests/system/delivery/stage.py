"""A sidecar that runs its own real Envoy, which leads back to itself, and an application behind it that echoes."""

from __future__ import annotations

import os
import select
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.system.attacks.stage import IDENTITY, PATIENCE, Scene, scene
from tests.system.xds.rig import ENVOY, LOCALHOST, free_port
from xds.bootstrap import envoy_command

ENDED = (OSError, EOFError)
BASE_ID = 40_000 + os.getpid() % 10_000
"""Of Envoys that a test runs: their shared memory is their own."""


class Echo(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Echoing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError):
            while data := self.request.recv(4096):
                self.request.sendall(data)


class Stream:
    """A TCP connection through Envoy, out and in again, to the application."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOCALHOST, port), timeout=PATIENCE)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self) -> None:
        """One exchange. Raises one of ENDED when the connection is over."""
        self._socket.sendall(b"still there?")
        heard = b""
        while len(heard) < 12:
            data = self._socket.recv(64)
            if not data:
                raise EOFError
            heard += data

    def ended(self, within: float) -> bool:
        """Whether it ends in so many seconds."""
        end = time.monotonic() + within
        with suppress(*ENDED):
            while time.monotonic() < end:
                self.ask()
                time.sleep(0.01)
            return False
        return True


@dataclass
class Own:
    """A scene whose sidecar runs Envoy. inbound, outbound: the ports of what leads to the application."""

    scene: Scene
    inbound: int
    outbound: int

    @property
    def admin(self) -> Path:
        return self.scene.folder / "keys" / "admin.sock"

    @contextmanager
    def started(self, *extra: str, program: Path = ENVOY) -> Iterator[subprocess.Popen[bytes]]:
        """An Envoy that the test runs, on the bootstrap that the sidecar wrote."""
        self.scene.until("started")
        folder = self.scene.folder / "keys"
        with (folder / "other.log").open("ab") as log:
            command = envoy_command(program, folder / "envoy.json", concurrency=1, base_id=BASE_ID, extra=extra)
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def changed(self) -> Path:
        """A file that is measured."""
        return self.scene.folder / "app" / "main"

    def envoy(self, *, instead_of: int = 0) -> int:
        """Its pid, once the measurer has vouched for it. instead_of: an earlier one's."""
        return int(self.scene.until("envoy-admitted", lambda each: each["envoy"] != instead_of)["envoy"])

    def stream(self) -> Stream:
        """One that works. A listener is bound once it is warm, and nothing tells of that."""
        end = time.monotonic() + PATIENCE
        while True:
            stream: Stream | None = None
            try:
                stream = Stream(self.outbound)
                stream.ask()
            except ENDED:
                if stream is not None:
                    stream.__exit__(None, None, None)
                assert time.monotonic() < end, "nothing gets through"
                time.sleep(0.02)
            else:
                return stream

    def ruled(self, old: str, new: str) -> None:
        """Its policy with these words in the place of others, once a round under it is over."""
        file, before = self.scene.folder / "authority" / "policies.yaml", len(self.scene.logs)
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        self.scene.hall.reload()
        self.scene.until("round", lambda each: each["full"], after=before)

    def closed(self) -> bool:
        """Neither port takes anything through."""
        for port in (self.inbound, self.outbound):
            with suppress(*ENDED), Stream(port) as stream:
                stream.ask()
                return False
        return True

    def until_closed(self) -> None:
        """What was told is in Envoy's socket, and in force a moment later: only calls tell when."""
        give_up = time.monotonic() + PATIENCE
        while not self.closed():
            assert time.monotonic() < give_up, "calls are still served"

    @contextmanager
    def drifted(self) -> Iterator[int]:
        """A measured file is not as it should be. Gives how many lines had been said before."""
        before, original = len(self.scene.logs), self.changed.read_text()
        self.changed.write_text("what should not be there")
        try:
            yield before
        finally:
            self.changed.write_text(original)


@contextmanager
def own(*, program: Sequence[str] = (), runs: bool = True, **terms: Any) -> Iterator[Own]:
    """Everything up, and nothing waited for. program: another one than Envoy. runs: whether the sidecar runs it.

    terms: as for a scene.
    """
    inbound, outbound = free_port(), free_port()
    with ExitStack() as undo:
        echo = undo.enter_context(Echo((LOCALHOST, 0), _Echoing))
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        undo.callback(echo.shutdown)
        delivery = {"mode": "xds", "service": _service(inbound, outbound, echo.server_address[1])}
        arguments = ("--run-envoy", *program) if runs else ()
        playing = undo.enter_context(scene(arguments=arguments, delivery=delivery, **terms))
        yield Own(playing, inbound, outbound)


def _service(inbound: int, outbound: int, app: int) -> dict[str, Any]:
    return {
        "bootstrap": "envoy.json",
        "admin": "admin.sock",
        "accessLog": "access.log",
        "log": "envoy.log",
        "concurrency": 1,
        "inbound": [
            {
                "listen": f"{LOCALHOST}:{inbound}",
                "app": f"{LOCALHOST}:{app}",
                "protocol": "tcp",
                "callers": [IDENTITY],
            }
        ],
        "upstreams": [
            {
                "name": "self",
                "listen": f"{LOCALHOST}:{outbound}",
                "peers": [f"{LOCALHOST}:{inbound}"],
                "protocol": "tcp",
                "identities": [IDENTITY],
            }
        ],
    }


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These stand still, the first one first."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def gone(pid: int, within: float = PATIENCE) -> bool:
    """Whether a process that is not ours to wait for ends in so many seconds."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], within)[0])
    finally:
        os.close(pidfd)
