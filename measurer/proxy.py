"""The collector of the proxy layer: what the guarded Envoy runs, who is attached to it, how it was started.

Nothing is looked at before the sidecar asks for the layer. From then on Envoy is looked at once a second, and read in
full when the sidecar says so: its program is a hundred megabytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise

from attestation.channel import Inspected
from attestation.coverage import CollectorCoverage, Mechanism
from attestation.digests import Digest
from attestation.errors import InvalidInput
from attestation.layers import Layer, Method
from attestation.proxy import Known, ProxyProcess
from measurer import kernel
from measurer.channel import Channel
from measurer.clock import boottime
from measurer.envoy import Envoy
from measurer.loop import Loop
from measurer.processes.binaries import Stamp, stamp_of
from measurer.processes.proc import executable_of, open_process, tracer_in
from measurer.scope import read_at

NAME = "proxy"
_INTERVAL = 1.0
_CHUNK = 1 << 20
_DRAIN_TIME = b"--drain-time-s"
"""Envoy's command line options: how long listeners that are taken away drain, by default ten minutes."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One Envoy, held by descriptors of our own, whatever becomes of its guardian's."""

    pid: int
    """As the sidecar knows it."""
    proc: int
    pidfd: int

    @classmethod
    def of(cls, envoy: Envoy) -> Seat | None:
        """None: it has ended."""
        try:
            proc = open_process(envoy.pid)
        except OSError:
            return None
        if kernel.has_ended(envoy.pidfd):  # and that number may be of somebody else by now
            os.close(proc)
            return None
        return cls(envoy.called, proc, os.dup(envoy.pidfd))

    def close(self) -> None:
        os.close(self.proc)
        os.close(self.pidfd)


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of one Envoy. tracer: its pid, 0 for nobody."""

    process: ProxyProcess
    tracer: int


class ProxyLayer:
    """covered: called when our coverage changed."""

    def __init__(self, loop: Loop, channel: Channel, covered: Callable[[], None]) -> None:
        self._loop, self._channel, self._covered = loop, channel, covered
        self._seat: Seat | None = None
        self._known: tuple[Stamp, Digest] | None = None
        self._full_began = 0.0
        self._told: ProxyProcess | None = None
        self._asked = False
        self._requests: list[tuple[float, bool]] = []
        self._inspecting = False

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        """Nothing before it was asked for."""
        watching = CollectorCoverage(NAME, Layer.PROXY, Mechanism.POLL, _INTERVAL * 1000, running=True)
        return (watching,) if self._asked else ()

    def guard(self, envoy: Envoy) -> None:
        """This Envoy from now on, of which nothing is known."""
        if self._seat is not None:
            self._seat.close()
        self._seat, self._known = Seat.of(envoy), None

    def close(self) -> None:
        if self._seat is not None:
            self._seat.close()
            self._seat = None

    def measure(self, not_before: float, full: bool) -> None:
        """Tell what Envoy is, as it is at or after `not_before`. full: its program is read again."""
        if not self._asked:
            self._asked = True
            self._covered()
            self._loop.look_after(NAME, _INTERVAL, self._look_again)
        self._requests.append((not_before, full))
        self._next()

    def _next(self) -> None:
        if self._inspecting or not self._requests:
            return
        wait = max(each for each, _ in self._requests) - boottime()
        if wait > 0:
            self._loop.after("proxy measurement", wait, self._next)
            return
        full = any(each for _, each in self._requests)
        self._requests.clear()
        self._begin(full, unasked=False)

    def _begin(self, full: bool, *, unasked: bool) -> None:
        self._inspecting = True
        self._loop.begin(self._inspect(full, unasked))

    def _look_again(self) -> None:
        self._loop.look_after(NAME, _INTERVAL, self._look_again)
        if not self._inspecting:
            self._begin(False, unasked=True)

    def _inspect(self, full: bool, unasked: bool) -> Iterator[None]:
        """unasked: only what is other than before is told."""
        if full:
            self._known = None
        began, anew = boottime(), self._known is None
        seat = self._seat
        executable = (yield from self._executable(seat)) if seat is not None else ""
        if seat is not self._seat:  # another has taken it meanwhile: of this one nothing is worth telling
            yield from self._inspect(full, unasked)
            return
        read = _read(seat, executable) if seat is not None else None
        if anew:
            self._full_began = began
        if not unasked or (read.process if read else None) != self._told:
            self._tell(seat, read, Method.FULL if anew else Method.INCREMENTAL, began)
        self._inspecting = False
        self._next()

    def _tell(self, seat: Seat | None, read: Read | None, method: Method, began: float) -> None:
        self._told = read.process if read is not None else None
        if seat is None or read is None:
            self._channel.send(Inspected(method, began, self._full_began, pid=seat.pid if seat is not None else 0))
            return
        tracer = f"{read.tracer} {executable_of(read.tracer)}".rstrip() if read.tracer else ""
        self._channel.send(Inspected(method, began, self._full_began, read.process, seat.pid, tracer))

    def _executable(self, seat: Seat) -> Generator[None, None, Digest]:
        """Digest of what it runs, empty where we may not read that; read anew where the kernel says it is another."""
        try:
            descriptor = os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=seat.proc)
        except OSError:
            return ""
        try:
            stamp = stamp_of(os.fstat(descriptor))
            if self._known is not None and self._known[0] == stamp:
                return self._known[1]
            digest = yield from _hashed(descriptor)
            if seat is self._seat and stamp_of(os.fstat(descriptor)) == stamp:
                self._known = (stamp, digest)
            return digest
        except OSError:
            return ""
        finally:
            os.close(descriptor)


def drains_at_once(command_line: bytes) -> Known:
    """Whether an Envoy of this /proc/PID/cmdline cuts the connections of a listener that is taken away."""
    arguments = command_line.split(b"\0")
    if command_line in (b"", b"\0"):
        return Known.UNKNOWN
    values = [value for name, value in pairwise(arguments) if name == _DRAIN_TIME]
    return Known.YES if values == [b"0"] else Known.NO


def _hashed(descriptor: int) -> Generator[None, None, Digest]:
    """SHA-256 of a file's content. Raises OSError."""
    state, position = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK, position):
        state.update(chunk)
        position += len(chunk)
        yield
    return state.hexdigest()


def _read(seat: Seat, executable: Digest) -> Read | None:
    """None: it has ended, and what was read may be of nobody."""
    tracer = _tracer(seat)
    process = ProxyProcess(
        executable,
        traced=_answer(None if tracer is None else tracer != 0),
        dumpable=_answer(kernel.dumpable(seat.pidfd)),
        drains_at_once=_drains_at_once(seat),
    )
    return None if kernel.has_ended(seat.pidfd) else Read(process, tracer or 0)


def _tracer(seat: Seat) -> int | None:
    """None: it could not be read."""
    try:
        return tracer_in(read_at(seat.proc, "status"))
    except (OSError, InvalidInput):
        return None


def _drains_at_once(seat: Seat) -> Known:
    try:
        return drains_at_once(read_at(seat.proc, "cmdline"))
    except OSError:
        return Known.UNKNOWN


def _answer(told: bool | None) -> Known:
    return Known.UNKNOWN if told is None else Known.YES if told else Known.NO
