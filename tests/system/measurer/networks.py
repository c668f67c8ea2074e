"""A network of a workload's own: everything of it on its loopback device, with addresses that are not loopback's."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

from measurer.kernel import enter_network
from tests.system.measurer.stage import Sidecar, Workload

OURS, THEIRS, OTHERS = "198.51.100.1", "203.0.113.9", "203.0.113.10"
"""The workload's address, and those of machines elsewhere, which are played by whoever enters the namespace."""
OURS_6, THEIRS_6 = "2001:db8::1", "2001:db8:9::9"
_SET_UP = (
    f"ip link set lo up && ip addr add {OURS}/32 dev lo && ip -6 addr add {OURS_6}/128 dev lo nodad"
    f" && ip route add local 203.0.113.0/24 dev lo src {OURS} table local"
    f" && ip -6 addr add {THEIRS_6}/128 dev lo nodad"
)
ALONE = ("unshare", "-n", "sh", "-c", f'{_SET_UP} && exec "$0" "$@"')
"""What a command begins with that has such a network."""


class Elsewhere:
    """Another machine, as far as the workload can tell: a server of TCP that keeps what it accepts. In its network."""

    def __init__(self, workload: Workload, host: str = THEIRS, family: int = socket.AF_INET) -> None:
        with inside(workload):
            self.server = socket.create_server((host, 0), family=family)
        self.port: int = self.server.getsockname()[1]
        self.host = host
        self.held: list[socket.socket] = []

    def accept(self) -> None:
        self.held.append(self.server.accept()[0])

    def close(self) -> None:
        for each in (self.server, *self.held):
            each.close()


@contextlib.contextmanager
def inside(workload: Workload) -> Iterator[None]:
    """This thread is in the workload's network. What is made there stays there."""
    with open("/proc/self/ns/net", "rb") as before, open(f"/proc/{workload.pid}/ns/net", "rb") as there:
        enter_network(there.fileno())
        try:
            yield
        finally:
            enter_network(before.fileno())


def beside(sidecar: Sidecar, workload: Workload) -> Sidecar:
    """The same, but its measurer lives in the workload's network, as in a pod."""
    sidecar.first = ("nsenter", f"--net=/proc/{workload.pid}/ns/net", *sidecar.first)
    return sidecar


def neighbour(workload: Workload) -> subprocess.Popen[str]:
    """A process in the workload's network that is none of the workload's, and that does what it is told."""
    act = "import socket, sys\nfor line in sys.stdin:\n    exec(line)\n    print('done', flush=True)\n"
    return subprocess.Popen(
        ["nsenter", f"--net=/proc/{workload.pid}/ns/net", sys.executable, "-c", act],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
