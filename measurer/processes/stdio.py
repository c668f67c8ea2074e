"""Processes whose standard input, output or error is a socket that leads out of the machine.

Looked at right after an execution, and once a second, for who puts it there later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from attestation.facts import Actor, Opened, StdioFact
from measurer.clock import boottime
from measurer.connections import Connection, Connections
from measurer.processes.descriptors import Stdio as Socket
from measurer.processes.descriptors import stdio_sockets
from measurer.processes.held import Held


class Stdio:
    """network: opens what lists the connections of the workload's network namespace; raises OSError. covered: whether
    we see them changed.
    """

    def __init__(
        self, network: Callable[[], Connections], tell: Callable[[StdioFact], None], covered: Callable[[], None]
    ) -> None:
        self._network, self._tell, self._covered = network, tell, covered
        self.blind = False
        """There are processes whose descriptors we may not look at."""
        self._refused: set[Held] = set()
        self._told: dict[Held, frozenset[int]] = {}
        """Inodes of those that were there at the last look; whoever has none is not here."""

    def executed(self, process: Held) -> None:
        """It runs another program now."""
        self._told.pop(process, None)
        self.look(process)

    def look(self, process: Held) -> None:
        sockets = process.read(stdio_sockets)
        if sockets is None:
            self._refuse(process)
        if not sockets:
            self._told.pop(process, None)
            return
        before = self._told.get(process, frozenset())
        self._told[process] = frozenset(each.inode for each in sockets)
        new = [each for each in sockets if each.inode not in before]
        if new:
            known = self._known({each.inode for each in new})
            for each in new:
                self._say(process, each, known.get(each.inode))

    def _refuse(self, process: Held) -> None:
        """Who is only about to end may not be looked at either: what counts is the second time."""
        if self.blind or not process.lives():
            return
        if process in self._refused:
            self.blind = True
            self._covered()
        self._refused.add(process)

    def keep_only(self, processes: set[Held]) -> None:
        self._refused &= processes
        for each in [each for each in self._told if each not in processes]:
            del self._told[each]

    def _known(self, inodes: set[int]) -> dict[int, Connection]:
        with suppress(OSError):  # then it is told without its other end
            network = self._network()
            try:
                return {each.inode: each for each in network.find(inodes)}
            finally:
                network.close()
        return {}

    def _say(self, process: Held, socket: Socket, known: Connection | None) -> None:
        if known is not None and known.listens:
            return  # nothing is read of it, or written to it; FastCGI programs are given one
        actor, inside = Actor(process.pid, process.executable()), process.pid_inside()
        opened, remote = (known.opened, known.remote) if known is not None else (Opened.UNKNOWN, "")
        self._tell(StdioFact(boottime(), actor, socket.descriptors, socket.protocol, opened, remote, inside))
