"""A measurer without its sidecar: asked, listened to, and weighed."""

from __future__ import annotations

import array
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from attestation.channel import MOST_BYTES, Fault, Measure, Message, Observed, Scope, decode, encode
from attestation.errors import Unavailable
from attestation.layers import Layer, Method
from sidecar.measurement import spawn

WITHIN_SECONDS = 120.0
M = TypeVar("M", bound=Message)


class Probe:
    """files_bytes: how large the last manifest was that came."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        spawned = spawn()
        if spawned.process is None:
            raise Unavailable("it is not ours to weigh", where="measurer")
        self._channel, self._process = spawned.channel, spawned.process
        self.files_bytes = 0

    def __enter__(self) -> Self:
        self._channel.setblocking(True)
        self.send(self._scope)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self._process.wait(10)

    def send(self, message: Message, descriptor: int | None = None) -> None:
        beside = [descriptor] if descriptor is not None else []
        socket.send_fds(self._channel, [encode(message)], beside)

    def expect(self, kind: type[M], matching: Callable[[M], bool]) -> M:
        """Raises Unavailable where it does not come in time, or cannot any more."""
        end = time.monotonic() + WITHIN_SECONDS
        while True:
            message = self._next(end - time.monotonic())
            if isinstance(message, kind) and matching(message):
                return message
            if isinstance(message, Fault):
                raise Unavailable(message.what, where=message.where, mend=message.mend)

    def measured(self, *, full: bool, layer: Layer = Layer.FILES) -> float:
        """Seconds that a measurement of this layer took, until it was here."""
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.send(Measure((layer,), began, full))
        self.expect(Observed, lambda each: _asked(each, layer) and each.observation.began >= began)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pss(self) -> float:
        """MiB in memory, shared pages by share (proc_pid_smaps(5))."""
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        line = next(each for each in text.splitlines() if each.startswith("Pss:"))
        return int(line.split()[1]) / 1024

    @property
    def processor(self) -> float:
        """Seconds of processor time so far (proc_pid_stat(5): utime and stime)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _next(self, seconds: float) -> Message:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        if not poll.poll(max(0.0, seconds) * 1000):
            raise Unavailable(f"nothing within {WITHIN_SECONDS:g} s", where="measurer")
        datagram, ancillary, _, _ = self._channel.recvmsg(MOST_BYTES, socket.CMSG_SPACE(16))
        if not datagram:
            raise Unavailable("its process ended", where="measurer")
        for _, _, data in ancillary:
            for each in array.array("i", data):
                self.files_bytes = os.fstat(each).st_size
                os.close(each)
        return decode(datagram)


def _asked(message: Observed, layer: Layer) -> bool:
    return message.observation.layer is layer and message.observation.method is not Method.EVENT
