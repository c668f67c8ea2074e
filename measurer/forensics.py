"""The forensic bundle: collected by a process of its own (bundle.py), bounded in bytes and time, sent as a sealed file.

A process of its own, because reading what a hostile workload shows can take long or for ever: arguments may lie on
memory that nobody ever pages in. Nothing here waits for it. What it has written by the time it is stopped is what is
sent; each line is whole by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from attestation.channel import Bundled, Contain
from measurer.channel import Channel, seal
from measurer.clock import boottime
from measurer.loop import Loop

_TIME_OUT = "forensics"
_SPARE = 0.5
"""Seconds beyond its own limit, for its start."""
COMPLETE = 0
"""Its exit status where nothing had to be left out."""


@dataclass(frozen=True, slots=True)
class _Running:
    order: Contain
    process: subprocess.Popen[bytes]
    pidfd: int
    body: int
    after: Callable[[], None]


class Forensics:
    """One bundle at a time. first: pid of the workload's first process."""

    def __init__(self, loop: Loop, channel: Channel, first: int) -> None:
        self._loop, self._channel, self._first = loop, channel, first
        self._running: _Running | None = None

    def take(self, order: Contain, found: dict[int, int], after: Callable[[], None]) -> None:
        """Begin; `after` is called once it is sent, or there is none. found: pids and their start times."""
        if self._running is not None:
            self._refuse(order, "another one is being taken", after)
            return
        body = os.memfd_create("forensic bundle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            process = _start(body, self._first, found, order)
            pidfd = os.pidfd_open(process.pid)
        except OSError as error:
            os.close(body)
            self._refuse(order, f"it could not be begun: {error.strerror}", after)
            return
        self._running = _Running(order, process, pidfd, body, after)
        self._loop.watch(pidfd, self._ended)
        self._loop.after(_TIME_OUT, order.within + _SPARE, process.kill)

    def close(self) -> None:
        """What is under way ends, and is not sent."""
        if self._running is not None:
            self._running.process.kill()
            self._over()

    def _refuse(self, order: Contain, why: str, after: Callable[[], None]) -> None:
        self._channel.send(Bundled(order.number, False, boottime(), why))
        after()

    def _ended(self) -> None:
        running = self._running
        if running is None:
            return
        status, body = self._over(), running.body
        try:
            os.ftruncate(body, min(os.fstat(body).st_size, running.order.bundle))
            seal(body)
        except OSError as error:
            os.close(body)
            self._refuse(running.order, error.strerror or "", running.after)
            return
        self._channel.send(Bundled(running.order.number, status == COMPLETE, boottime()), body)
        running.after()

    def _over(self) -> int:
        running, self._running = self._running, None
        assert running is not None  # noqa: S101 - both callers have looked
        self._loop.forget(running.pidfd)
        self._loop.cancel(_TIME_OUT)
        os.close(running.pidfd)
        return running.process.wait()


def _start(body: int, first: int, found: dict[int, int], order: Contain) -> subprocess.Popen[bytes]:
    """What it is told is in its standard input, a file: nothing waits until it reads."""
    told = os.memfd_create("forensic bundle's subject", os.MFD_CLOEXEC)
    try:
        os.write(told, json.dumps({"first": first, "pids": sorted(found.items())}).encode())
        os.lseek(told, 0, os.SEEK_SET)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "measurer.bundle", str(body), str(order.bundle), str(order.within)],
            pass_fds=(body,),
            stdin=told,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(told)
