"""Whether the gate's process still answers. One that does not is killed, and the kernel lets go of whoever waits.

A thread of its own: what the measurer's main thread does may hang, and the executions of the workload must not hang
with it. A stopped process takes SIGKILL as well.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from contextlib import suppress

INTERVAL = 0.5
LIMIT = 3.0
"""Seconds without an answer. Far above what a busy machine makes of it (measurer/heartbeat.py)."""
_BEAT = b"."


class Watch:
    """process: its pidfd. alive: our end of what it sends back. limit: seconds."""

    def __init__(self, process: int, alive: socket.socket, limit: float = LIMIT) -> None:
        self._process, self._alive, self._limit = process, alive, limit
        self._over = os.eventfd(0, os.EFD_CLOEXEC)
        self.gave_up = False
        """It did not answer, and was killed. It may end later: not before what it hangs in lets it."""
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable once that is so."""
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        os.eventfd_write(self._over, 1)
        self._thread.join()
        for each in (self._over, self.descriptor):
            os.close(each)
        self._alive.close()

    def _run(self) -> None:
        ends, answers = select.poll(), select.poll()
        for each in (self._process, self._over):
            ends.register(each, select.POLLIN)
            answers.register(each, select.POLLIN)
        answers.register(self._alive, select.POLLIN)
        while not ends.poll(INTERVAL * 1000):
            with suppress(OSError):
                self._alive.send(_BEAT)
            ready = dict(answers.poll(self._limit * 1000))
            if ready.keys() & {self._process, self._over}:
                return
            if not ready:
                self.gave_up = True
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
                os.eventfd_write(self.descriptor, 1)
                return
            with suppress(OSError):
                self._alive.recv(1)
