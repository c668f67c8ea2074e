"""Somebody's own program: what is run, and one run of it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attestation.errors import Unavailable
from measurer.processes.proc import stat_of
from proofbeat.ephemeral.children import Child, Children
from proofbeat.up import reaper
from proofbeat.up.under import Under, left

_STDERR = 2
_LEFT_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """command: run in the folder cwd. wait: seconds until it must listen. port: where; None: found out."""

    command: Sequence[str]
    cwd: Path
    wait: float
    port: int | None


class Ended(Unavailable):
    """The program has ended. code: its exit code, 128 + N where signal N ended it."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(
            f"your program ended with exit code {code}",
            where="proofbeat up",
            mend="" if code else "Its first process is what is attested: run it in the foreground.",
        )


@dataclass(frozen=True, slots=True)
class Instance:
    """One run of the program. pid: its first process. reaper: ends with it, and when all of it has ended. orders: to
    the intruder beside it, where there is one.
    """

    pid: int
    reaper: Child
    orders: asyncio.StreamWriter | None = None

    @property
    def gone(self) -> bool:
        """Has its first process ended? What else it started may still be ending."""
        stat = stat_of(self.pid)
        return stat is None or stat.parent != self.reaper.pid or stat.state in "ZX"

    def order(self, source: str) -> None:
        """Have the intruder do that."""
        if self.orders is not None:
            self.orders.write(json.dumps(source).encode() + b"\n")

    async def end(self) -> None:
        """It and all that it started."""
        if self.orders is not None:
            self.orders.close()
        await self.reaper.end()


async def start(program: Program, children: Children, *, quiet_stdout: bool) -> Instance:
    """Its output is the terminal's. Raises Unavailable where it cannot be started."""
    instance, writer = await _begin(program, reaper.command(program.command), children, quiet_stdout=quiet_stdout)
    writer.close()
    return instance


async def start_intruded(program: Program, children: Children, *, quiet_stdout: bool) -> Instance:
    """The same, with an intruder as a child of its process."""
    command = reaper.command(program.command, intruded=True)
    instance, writer = await _begin(program, command, children, quiet_stdout=quiet_stdout)
    writer.write(reaper.GO)
    return replace(instance, orders=writer)


async def hold(program: Program, children: Children, *, quiet_stdout: bool) -> tuple[Instance, Callable[[], None]]:
    """The same, but that its process waits, and executes the program once the function is called."""
    command = reaper.command(program.command, held=True)
    instance, writer = await _begin(program, command, children, quiet_stdout=quiet_stdout)

    def go() -> None:
        writer.write(reaper.GO)
        writer.close()

    return instance, go


async def start_under(program: Program, code: bytes, children: Children, *, quiet_stdout: bool) -> tuple[Instance, int]:
    """The same, under a seccomp filter from its first instruction on. Returns the filter's listener, too."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            command = reaper.command(program.command, under=Under(code, theirs.fileno()))
            instance, writer = await _begin(
                program, command, children, quiet_stdout=quiet_stdout, also=(theirs.fileno(),)
            )
        listener = await asyncio.to_thread(_left, ours, program.command[0])
    writer.write(reaper.GO)
    writer.close()
    return instance, listener


def _left(there: socket.socket, program: str) -> int:
    there.settimeout(_LEFT_WITHIN)
    try:
        return left(there)
    except OSError as error:
        raise Unavailable(
            f"it cannot be started under a filter that asks: {error}",
            where=program,
            mend="Leave out --notified. `Device or resource busy`: we run under such a filter ourselves.",
        ) from error


async def _begin(
    program: Program, command: list[str], children: Children, *, quiet_stdout: bool, also: Sequence[int] = ()
) -> tuple[Instance, asyncio.StreamWriter]:
    ours, theirs = socket.socketpair()
    with theirs:
        child = await children.start(
            "program",
            command,
            stdin=theirs.fileno(),
            stdout=_STDERR if quiet_stdout else sys.stdout.fileno(),
            stderr=_STDERR,
            cwd=program.cwd,
            also=also,
            kill=signal.SIGQUIT,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    said = (await reader.readline()).decode().strip()
    if not said.isdigit():
        writer.close()
        raise Unavailable(f"it cannot be started: {said or child.outcome}", where=program.command[0])
    return Instance(int(said), child), writer
