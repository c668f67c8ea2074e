"""`python -m measurer.gate CONTROL ALIVE PARENT`: started by a measurer, with its ends of two socketpairs."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress

from measurer import kernel
from measurer.gate.judge import Judge
from measurer.processes.held import allow_descriptors

_BEFORE_OTHERS = -15


def main(control: int, alive: int, parent: int) -> None:
    """Raises OSError where the kernel lets nobody be asked."""
    kernel.forbid_tracing()
    for number in (signal.SIGIO, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGIO: somebody waits for a lease
        signal.signal(number, signal.SIG_IGN)
    if not kernel.die_with_parent(parent):
        return
    allow_descriptors()
    both = [socket.socket(fileno=each) for each in (control, alive)]
    for each in both:
        each.setblocking(False)
    judge = Judge(*both)
    with suppress(OSError):  # whoever executes something waits for this thread, and for no other of ours
        os.nice(_BEFORE_OTHERS)
    try:
        judge.run()
    finally:
        judge.close()


if __name__ == "__main__":
    try:
        main(*(int(each) for each in sys.argv[1:4]))
    except OSError as failure:
        sys.stderr.write(f"measurer.gate: {failure.strerror}\n")
        os._exit(failure.errno or 1)
    os._exit(0)  # a thread that hangs in a read does not keep it
