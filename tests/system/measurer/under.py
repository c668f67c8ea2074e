"""A workload that is started under a seccomp filter that asks, with what it is asked at."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from attestation.calls import NAMES
from proofbeat.up.filter import here
from proofbeat.up.under import Under, left
from tests.system.measurer.stage import User, Workload

ROOT_USER = User()


@dataclass
class Asking:
    """listener: as its starter left it; ours."""

    workload: Workload
    listener: int

    def close(self) -> None:
        """Ours of it."""
        if self.listener >= 0:
            os.close(self.listener)
        self.listener = -1


@contextmanager
def under(asked: Iterable[str], user: User = ROOT_USER) -> Iterator[Asking]:
    """Asked for are these calls. user: who it runs as."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    filtered = Under(here(NAMES - set(asked)), theirs.fileno())
    with ours, theirs:
        workload = Workload(filtered.command(user.first), user.python, also=(theirs.fileno(),))
        asking = Asking(workload, left(ours))
    try:
        yield asking
    finally:
        workload.end()
        asking.close()
