"""Runs a program, and ends with it and with all that it started: an init, as containers have one.

What loses its parent becomes a child of this process (prctl(2), PR_SET_CHILD_SUBREAPER), so that nothing gets away. It
is a process of its own, for whoever adopts has to reap whatever dies.

SIGTERM asks all of them to end, and kills what has not after GRACE_SECONDS; SIGQUIT kills at once. The end of the
process that started this one counts as SIGTERM. Usage: as `command` has it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from math import inf

from proofbeat.up import intruder
from proofbeat.up.descendants import descendants
from proofbeat.up.under import Under

GRACE_SECONDS = 2.0
_HEARD = (signal.SIGCHLD, signal.SIGTERM, signal.SIGQUIT)
_LONG, _SHORT = 3600.0, 0.05
_CANNOT_START = 127
GO = b"\n"
_HELD, _INTRUDED, _NOW = "held", "intruded", "now"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def command(
    program: Sequence[str], *, held: bool = False, intruded: bool = False, under: Under | None = None
) -> list[str]:
    """What starts it. On stdin, a socket, it says one line: the program's pid, or why it cannot be started.

    held: that process executes the program once GO comes there, so that somebody can look at it from its first
    instruction on. intruded: the same, and has an intruder as a child, who takes orders there after GO (intruder.py).
    under: the same as held, and under this filter from before GO on. The exit code is the program's, 128 + N where
    signal N ended that.
    """
    how = _INTRUDED if intruded else _HELD if held or under else _NOW
    return [sys.executable, "-P", "-m", "proofbeat.up.reaper", how, str(under or ""), *program]


class Reaper:
    """Over a program that was started already. What it hears of has to be blocked, so that it waits."""

    def __init__(self, program: int) -> None:
        self._program = program
        self._code = 0
        self._kill_at = inf

    def run(self) -> int:
        """Until nothing is left. Returns the exit code."""
        while self._reap():
            if time.monotonic() >= self._kill_at and not _send_all(signal.SIGKILL):
                break  # what is left runs as somebody else, and is not ours to end
            self._wait()
        return self._code

    def _reap(self) -> bool:
        """Whether anything is left."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._program:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = code if code >= 0 else 128 - code
                    self._ask()
        return False

    def _wait(self) -> None:
        """Until somebody has ended, or all are to end."""
        left = self._kill_at - time.monotonic()
        heard = signal.sigtimedwait(_HEARD, min(left, _LONG) if left > 0 else _SHORT)
        match heard.si_signo if heard else None:
            case signal.SIGTERM:
                self._ask()
            case signal.SIGQUIT:
                self._kill_at = time.monotonic()

    def _ask(self) -> None:
        if self._kill_at == inf:
            self._kill_at = time.monotonic() + GRACE_SECONDS
            _send_all(signal.SIGTERM)
            _send_all(signal.SIGCONT)


def _send_all(number: signal.Signals) -> bool:
    """Whether anybody could be sent it."""
    reached = False
    for pid in descendants(os.getpid()):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
            reached = True
    return reached


def _main(how: str, under: Under | None, program: Sequence[str]) -> int:
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        if how in (_HELD, _INTRUDED):
            pid = _hold(program, before, under, intruded=how == _INTRUDED)
        else:
            started = subprocess.Popen(  # held to the end: it would reap by itself when it goes
                program,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
            )
            pid = started.pid
    except OSError as error:
        _say(str(error.strerror))
        return _CANNOT_START
    _say(str(pid))
    return Reaper(pid).run()


def _hold(program: Sequence[str], mask: set[signal.Signals | int], under: Under | None, *, intruded: bool) -> int:
    """The pid of a process that waits for GO: between that and the program it makes no call but the execution itself,
    and where it is `intruded` the fork of the intruder.

    Raises OSError where there is no such program.
    """
    path = shutil.which(program[0])
    if path is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    pid = os.fork()
    if pid:
        if under is not None:
            os.close(under.leave_at)
        return pid
    gate, nothing = os.dup(sys.stdin.fileno()), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.setsid()
    for each in (signal.SIGPIPE, signal.SIGXFSZ):  # which an interpreter ignores, and its children would, too
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if under is not None:
        under.stand()
    try:
        if os.read(gate, len(GO)):
            if intruded and os.fork() == 0:
                intruder.wait(gate)
            os.execv(path, list(program))  # noqa: S606 - an argument list, and no shell is wanted
    except OSError as error:
        os.write(sys.stderr.fileno(), f"{path}: {error.strerror}\n".encode())
    os._exit(_CANNOT_START)


def _say(line: str) -> None:
    try:
        os.write(sys.stdin.fileno(), f"{line}\n".encode())
    except BrokenPipeError:
        # Who started this ended too early for its end to be a signal.
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], Under.parse(sys.argv[2]) if sys.argv[2] else None, sys.argv[3:]))
