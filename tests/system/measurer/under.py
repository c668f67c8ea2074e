"""A workload that is started under a seccomp filter that asks, with what it is asked at."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from attestation.calls import NAMES
from proofbeat.up.filter import here
from proofbeat.up.under import LISTENER, Under
from tests.system.measurer.stage import User, Workload

ROOT_USER = User()
_STARTER = """
import os, sys
from proofbeat.up.under import Under
Under.parse(sys.argv[1]).stand().join()
os.execvp(sys.argv[2], sys.argv[2:])
"""


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
        starter = (sys.executable, "-c", _STARTER, str(filtered), *user.first)
        workload = Workload(starter, user.python, also=(theirs.fileno(),))
        ours.settimeout(10.0)
        said, descriptors, _, _ = socket.recv_fds(ours, 64, 1, socket.MSG_CMSG_CLOEXEC)
    assert said == LISTENER, said
    asking = Asking(workload, descriptors[0])
    try:
        yield asking
    finally:
        workload.end()
        asking.close()
