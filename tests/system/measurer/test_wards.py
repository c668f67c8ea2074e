"""Who watches those that must not be reached, found by looking: where no event tells it, or told it before us."""

from __future__ import annotations

import os
import subprocess
import sys

from attestation.facts import ProcessAspect, ProcessFact
from measurer.processes.wards import Wards

_WATCHED = "import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0); print('watched', flush=True); input()"
"""PTRACE_TRACEME (ptrace(2)): by whoever started it."""


def test_who_was_attached_before_anybody_heard_of_it_is_told_once() -> None:
    told: list[ProcessFact] = []
    wards = Wards(told.append, lambda _: None)
    with subprocess.Popen([sys.executable, "-c", _WATCHED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ward:
        assert ward.stdin
        assert ward.stdout
        assert ward.stdout.readline() == b"watched\n"
        pidfd = os.pidfd_open(ward.pid)
        try:
            wards.protect({ward.pid: pidfd})
            wards.look()
        finally:
            os.close(pidfd)
            ward.stdin.write(b"\n")
    assert [(each.process.pid, each.aspect, each.before) for each in told] == [
        (ward.pid, ProcessAspect.TRACER, "0"),
    ]
    assert told[0].after.split(" ")[0] == str(os.getpid())
