"""The measurer's end of the gate: it starts the process, has the workload's mounts marked, and tells what comes of it.

There is a gate only where the workload has a mount namespace of its own, and is the first in it. Then whatever is
executed from its mounts is the workload's, and a gate that hangs holds up nobody else. Until it stands, and once it has
ended, everything may be executed, and is told as ever: coverage says which of both it is.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from attestation.coverage import GATE, CollectorCoverage, Mechanism
from attestation.facts import Actor, CollectorFact, CollectorState, RefusalFact
from attestation.layers import Layer
from measurer.channel import Channel
from measurer.clock import boottime
from measurer.gate.watch import Watch
from measurer.gate.words import (
    MOST_BYTES,
    MOST_MARKS,
    Allow,
    Mark,
    Marked,
    Refused,
    Unheld,
    Untold,
    Word,
    decode,
    encode,
)
from measurer.loop import Loop

_AGAIN, _MOST_AGAIN = 2.0, 60.0
"""Seconds until one that has ended is started again; twice as long each time that it did not stand in between."""
_PATIENCE = 5.0
"""Seconds within which it has to stand, for whoever waits for that."""
_ENDS_WITHIN = 0.2
_STANDS_BY, _AGAIN_BY = "gate stands", "gate again"
_MOST_A_TURN = 64
_SHARED = "others execute from its mounts as well: it has no mount namespace of its own"


class Marking(Protocol):
    """Who knows the workload's mounts."""

    def gate(self, gate: Gate | None) -> bool:
        """Have all marked for this one too, now and later; for nobody with None. False where none can be."""


@dataclass(slots=True)
class _Running:
    """unanswered: marks under way. unmarked: what takes none. batch: descriptor, point and whole of marks to send."""

    process: subprocess.Popen[bytes]
    pidfd: int
    control: socket.socket
    watch: Watch
    given_up: bool = False
    unanswered: int = 0
    unmarked: set[str] = field(default_factory=set)
    batch: list[tuple[int, str, bool]] = field(default_factory=list)


class Gate:
    """apart: the workload's mounts are its own. path_of: the workload's path for one of ours. changed: coverage did.

    settled: called once it stands, or is known not to.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        marking: Marking,
        *,
        apart: bool,
        path_of: Callable[[str], str],
        changed: Callable[[], None],
        settled: Callable[[], None],
    ) -> None:
        self._loop, self._channel, self._marking = loop, channel, marking
        self._apart, self._path_of = apart, path_of
        self._changed, self._settled = changed, settled
        self._list = -1
        self._running: _Running | None = None
        self._stands = False
        self._waited_for = False
        self._pause = _AGAIN
        self._why = ""
        self._lost = 0
        self._unheld = ""

    @property
    def asked(self) -> bool:
        return self._list >= 0

    @property
    def unsettled(self) -> bool:
        """It was asked for and may stand in a moment: what is measured now would say that it does not."""
        return self._waited_for

    @property
    def named(self) -> tuple[int, int] | None:
        """Pid and pidfd of its process."""
        return (self._running.process.pid, self._running.pidfd) if self._running is not None else None

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        """Nothing where nobody asks for it. Not running: executions are not held up."""
        if not self.asked:
            return ()
        detail = "; ".join(each for each in (self._why, self._unheld) if each)
        return (CollectorCoverage(GATE, Layer.PROCESSES, Mechanism.FANOTIFY, 0.0, self._stands, self._lost, detail),)

    def order(self, digests: int | None) -> None:
        """Refuse what is not in this list from now on, an open file that is ours then. None: let everything run."""
        self._drop_list()
        self._list = digests if digests is not None else -1
        if digests is None:
            self._end("")
            self._settle()
        elif self._running is not None:
            self._send(Allow(), (digests,))
        elif not self._apart:
            self._why = _SHARED
        else:
            self._start()
        self._changed()

    def mark(self, point: str, descriptor: int, whole: bool) -> None:
        """Ask before what is executed from this mount, or with `whole` from its file system, once it is flushed."""
        if self._running is not None:
            self._running.batch.append((os.dup(descriptor), point, whole))
            if len(self._running.batch) >= MOST_MARKS:
                self.flush()

    def flush(self) -> None:
        running = self._running
        if running is None or not running.batch:
            return
        batch, running.batch = running.batch, []
        descriptors = tuple(descriptor for descriptor, _, _ in batch)
        running.unanswered += 1
        self._send(Mark(tuple(point for _, point, _ in batch), tuple(whole for _, _, whole in batch)), descriptors)
        for each in descriptors:
            os.close(each)

    def close(self) -> None:
        """End it, and tell nobody. The kernel lets everything run."""
        self._drop_list()
        self._end("")
        self._waited_for = False
        for name in (_STANDS_BY, _AGAIN_BY):
            self._loop.cancel(name)

    def _drop_list(self) -> None:
        if self._list >= 0:
            os.close(self._list)
            self._list = -1

    def _start(self) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        alive, echo = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (control, alive):
            each.setblocking(False)
        with theirs, echo:
            arguments = [str(each) for each in (theirs.fileno(), echo.fileno(), os.getpid())]
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "measurer.gate", *arguments],
                pass_fds=(theirs.fileno(), echo.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        pidfd = os.pidfd_open(process.pid)
        self._running = _Running(process, pidfd, control, Watch(pidfd, alive))
        self._why, self._waited_for = "it is being set up", True
        self._loop.watch(pidfd, self._ended)
        self._loop.watch(self._running.watch.descriptor, self._given_up)
        self._loop.watch(control.fileno(), self._heard)
        self._loop.after(_STANDS_BY, _PATIENCE, self._settle)
        self._send(Allow(), (self._list,))
        if not self._marking.gate(self):
            self._end("no mount can be marked")
            self._settle()

    def _send(self, word: Word, descriptors: tuple[int, ...]) -> None:
        """Without waiting: who does not take it answers nobody else either."""
        if self._running is None:
            return
        try:
            socket.send_fds(self._running.control, [encode(word)], descriptors)
        except OSError:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._running.pidfd, signal.SIGKILL)

    def _heard(self) -> None:
        for _ in range(_MOST_A_TURN):
            if self._running is None:
                return
            try:
                datagram = self._running.control.recv(MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                datagram = b""
            if not datagram:
                self._loop.forget(self._running.control.fileno())
                return  # it ends
            self._take(decode(datagram))

    def _take(self, word: Word) -> None:
        match word:
            case Marked(refused):
                self._marked(refused)
            case Refused():
                self._tell(word)
            case Untold(count, why):
                self._lost += count
                self._say(CollectorState.OVERFLOWED, why)
                self._changed()
            case Unheld(why):
                self._unheld = why
                self._changed()
            case _:
                pass

    def _marked(self, refused: tuple[str, ...]) -> None:
        running = self._running
        if running is None:
            return
        running.unanswered -= 1
        running.unmarked.update(refused)
        if running.unanswered:
            return
        stood, self._stands = self._stands, not running.unmarked
        self._why = f"not marked: {', '.join(sorted(running.unmarked))}" if running.unmarked else ""
        if stood and not self._stands:
            self._say(CollectorState.DEAD, self._why)
        self._settle()
        if self._stands and not stood:
            self._pause = _AGAIN
            self._say(CollectorState.RUNNING, "it stands")

    def _tell(self, refused: Refused) -> None:
        actor = Actor(refused.pid, refused.executable, refused.parent)
        path = self._path_of(refused.link)
        self._channel.send(RefusalFact(refused.at, path, refused.digest, actor, refused.deleted, refused.inside))

    def _given_up(self) -> None:
        """Whoever waits is let go once it has ended, which is soon, unless it hangs in the kernel."""
        running = self._running
        if running is None or running.given_up:
            return
        running.given_up = True
        self._loop.forget(running.watch.descriptor)
        self._falls("it did not answer and was killed")
        self._settle()

    def _ended(self) -> None:
        """Whoever waited has been let go by the kernel."""
        running = self._running
        if running is None:
            return
        self._heard()  # what it said last
        status = running.process.wait()
        if running.watch.gave_up:
            self._given_up()
        else:
            self._falls(f"it ended ({_spelled(status)})")
        self._end(self._why)
        self._settle()
        self._loop.after(_AGAIN_BY, self._pause, self._start_again)
        self._pause = min(self._pause * 2, _MOST_AGAIN)

    def _falls(self, why: str) -> None:
        self._stands, self._why = False, why
        self._say(CollectorState.DEAD, f"{why}: nothing is refused")

    def _start_again(self) -> None:
        if self.asked and self._running is None:
            self._start()
            self._changed()

    def _end(self, why: str) -> None:
        running, self._running = self._running, None
        self._stands, self._why = False, why
        self._marking.gate(None)
        self._loop.cancel(_AGAIN_BY)
        if running is not None:
            self._loop.forget(running.pidfd)
            self._loop.forget(running.control.fileno())
            self._loop.forget(running.watch.descriptor)
            running.process.kill()
            with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, and nobody waits for that
                running.process.wait(_ENDS_WITHIN)
            running.watch.close()
            running.control.close()
            os.close(running.pidfd)
            for descriptor, _, _ in running.batch:
                os.close(descriptor)

    def _settle(self) -> None:
        self._loop.cancel(_STANDS_BY)
        self._waited_for = False
        self._changed()
        self._settled()

    def _say(self, state: CollectorState, detail: str) -> None:
        self._channel.send(CollectorFact(boottime(), GATE, state, detail))


def _spelled(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else os.strerror(status) if status else "without an error"
