"""A node's measurer, and stand-ins for the sidecars that call it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from attestation import channel as words
from attestation.channel import Scope
from tests.system.measurer.stage import PATIENCE, ROOT, Sidecar


class Node:
    """`python -m measurer --listen`. allow: grants; by default our own user's sidecars may have anything measured."""

    def __init__(self, folder: Path, allow: Sequence[str] = ("0:any",), options: Sequence[str] = ()) -> None:
        self.socket = folder / "measurer.sock"
        grants = [f"--allow={each}" for each in allow]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "measurer", "--listen", str(self.socket), *grants, *options],
            cwd=ROOT,
            start_new_session=True,
        )

    def __enter__(self) -> Node:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as trying:
            for _ in range(int(PATIENCE / 0.02)):
                if trying.connect_ex(str(self.socket)) == 0:
                    return self
                select.select([], [], [], 0.02)  # another program's socket file: nothing of it can be awaited
        raise AssertionError("the node's measurer does not listen")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()

    def sidecar(self, scope: Scope) -> Caller:
        return Caller(scope, self)

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


class Caller(Sidecar):
    """A sidecar that calls the node's measurer, by the same messages."""

    def __init__(self, scope: Scope, node: Node) -> None:
        super().__init__(scope)
        self._node = node

    def __enter__(self) -> Caller:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(self._node.socket))
        self.process = self._node.process
        pidfd = os.pidfd_open(self.scope.pid)
        socket.send_fds(self.socket, [words.encode(self.scope)], [pidfd])
        os.close(pidfd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
