"""The loop of the gate's process: the kernel asks, a list answers. It decides nothing, and waits for nobody.

A thread that opens a file to execute it stands still until it is answered, for which the kernel knows no time-out. So
nothing here reads a file (contents.py does, in threads), asks the measurer, or waits until that hears. Whatever this
cannot find out in time is refused. The group is open in this process alone: when it ends, however that comes about, the
kernel lets everything run that waits, and everything after it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from measurer import fanotify
from measurer import kernel as k
from measurer.clock import boottime, monotonic
from measurer.gate import leases
from measurer.gate.contents import Contents, Readers
from measurer.gate.leases import Hold, Leases
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
from measurer.processes.binaries import Stamp, stamp_of

READ_WITHIN = 10.0
"""Seconds in which a file has to be read. What takes longer is refused."""
WRITTEN_WITHIN = 0.1
"""Seconds for whoever has a file open for writing to close it, as whoever has just put it there does."""
_TICK = 0.005
_BUFFER = 4096
_DIGEST_BYTES = 32
_MOST_UNSENT = 1024
_GROUP = k.FAN_CLASS_CONTENT | k.FAN_CLOEXEC | k.FAN_NONBLOCK | k.FAN_UNLIMITED_QUEUE | k.FAN_UNLIMITED_MARKS
_RESPONSE = struct.Struct("=iI")
_GONE = " (deleted)"


@dataclass(eq=False, slots=True)
class Asked:
    """A thread that waits for an answer. came: CLOCK_MONOTONIC seconds."""

    descriptor: int
    tid: int
    came: float
    stamp: Stamp = (0, 0, 0, 0)
    deleted: bool = False
    hold: Hold = Hold.BUSY
    answered: bool = False


class Judge:
    """control: to the measurer. alive: what comes here is sent back. Raises OSError where the kernel refuses."""

    def __init__(self, control: socket.socket, alive: socket.socket) -> None:
        # Without a limit of the queue: what does not fit in would be let through.
        self._group = k.fanotify_init(_GROUP | k.FAN_REPORT_TID)
        self._control, self._alive = control, alive
        self._contents, self._readers, self._leases = Contents(), Readers(), Leases()
        self._allowed: frozenset[bytes] = frozenset()
        self._busy: deque[Asked] = deque()
        self._reading: dict[int, Asked] = {}
        self._unsent: deque[Word] = deque()
        self._untold = 0
        self._unheld_told = False
        self._due = 0.0
        self._home = os.stat("/proc/self/ns/mnt").st_ino  # noqa: PTH116 - as everywhere here

    def run(self) -> None:
        """Until the measurer hangs up. Raises InvalidInput, OSError."""
        poll = select.poll()
        for each in (self._alive, self._control, self._readers.descriptor, self._group):
            poll.register(each, select.POLLIN)
        hears, wanted = True, select.POLLIN
        while hears:
            wants = select.POLLIN | (select.POLLOUT if self._unsent else 0)
            if wants != wanted:
                poll.modify(self._control, wants)
                wanted = wants
            ready = dict(poll.poll(self._patience()))
            if self._alive.fileno() in ready:
                self._say_that_it_lives()
            if ready.get(self._group):
                self._read()
            if ready.get(self._readers.descriptor):
                self._finish_reading()
            if event := ready.get(self._control.fileno(), 0):
                hears = self._hear() if event & ~select.POLLOUT else True
                self._send_on()
            self._settle()

    def close(self) -> None:
        """Let everything run, whatever a thread of ours still hangs in."""
        os.close(self._group)

    def _patience(self) -> float | None:
        """Milliseconds."""
        if self._leases or self._busy:
            return _TICK * 1000
        return 1000 if self._reading else None

    def _say_that_it_lives(self) -> None:
        with suppress(OSError):
            self._alive.send(self._alive.recv(1))

    # The measurer's words.

    def _hear(self) -> bool:
        """False once it has hung up."""
        datagram, descriptors, _, _ = socket.recv_fds(self._control, MOST_BYTES, MOST_MARKS, socket.MSG_CMSG_CLOEXEC)
        if not datagram:
            return False
        try:
            match decode(datagram):
                case Allow():
                    self._allowed = _read_list(descriptors[0])
                case Mark(points, whole):
                    refused = map(self._mark, descriptors, points, whole)
                    self._tell(Marked(tuple(each for each in refused if each)))
                case _:
                    pass
        finally:
            for each in descriptors:
                os.close(each)
        return True

    def _mark(self, descriptor: int, point: str, whole: bool) -> str:
        """Where the kernel refused; else nothing."""
        kind = k.FAN_MARK_FILESYSTEM if whole else k.FAN_MARK_MOUNT
        path = b"/proc/self/fd/%d" % descriptor
        try:
            k.fanotify_mark(self._group, k.FAN_MARK_ADD | kind, k.FAN_OPEN_EXEC_PERM, k.AT_FDCWD, path)
        except OSError as error:
            return f"{point}: {error.strerror}"
        return ""

    # The kernel's questions.

    def _read(self) -> None:
        try:
            buffer = os.read(self._group, _BUFFER)
        except BlockingIOError:
            return
        except OSError as error:  # it could not be opened for us, and the kernel has refused it
            self._tell(Untold(1, f"a file could not be opened: {error.strerror}"))
            return
        now = monotonic()
        for event in fanotify.events(buffer):
            self._leases.passed(event.pid)
            self._ask(Asked(event.descriptor, event.pid, now))

    def _ask(self, asked: Asked) -> None:
        """Answer what can be answered at once."""
        asked.hold = leases.take(asked.descriptor)
        if asked.hold is Hold.BUSY:
            self._busy.append(asked)
            return
        status = os.fstat(asked.descriptor)
        asked.stamp, asked.deleted = stamp_of(status), status.st_nlink == 0
        digest = self._contents.known(asked.stamp)
        if digest is None:
            self._reading[asked.descriptor] = asked
            self._readers.begin(asked.descriptor)
        else:
            self._decide(asked, digest)

    def _finish_reading(self) -> None:
        os.eventfd_read(self._readers.descriptor)
        while self._readers.done:
            descriptor, digest = self._readers.done.popleft()
            asked = self._reading.pop(descriptor)
            if digest is not None and stamp_of(os.fstat(descriptor)) != asked.stamp:
                digest = None  # it takes no lease, and was written to meanwhile
            if digest is not None:
                self._contents.keep(asked.stamp, digest)
            if asked.answered:
                os.close(descriptor)
            else:
                self._decide(asked, digest)

    def _settle(self) -> None:
        now = monotonic()
        if now < self._due:
            return
        self._due = now + _TICK
        self._leases.settle(now)
        for _ in range(len(self._busy)):
            asked = self._busy.popleft()
            if now - asked.came < WRITTEN_WITHIN:
                self._ask(asked)
            else:  # as the kernel does, which tells it as ETXTBSY: of foreign code it says nothing
                self._answer(asked, k.FAN_DENY)
                os.close(asked.descriptor)
        for asked in self._reading.values():
            if not asked.answered and now - asked.came >= READ_WITHIN:
                self._refuse(asked, None)

    def _decide(self, asked: Asked, digest: bytes | None) -> None:
        if digest is None or digest not in self._allowed:
            self._refuse(asked, digest)
            os.close(asked.descriptor)
            return
        self._answer(asked, k.FAN_ALLOW)
        if asked.hold is Hold.HELD:
            self._leases.keep(asked.tid, asked.descriptor, asked.stamp[:2], monotonic())
            return
        os.close(asked.descriptor)
        if not self._unheld_told:
            self._unheld_told = True
            self._tell(Unheld("not every file is held against writing between the look at it and its execution"))

    def _refuse(self, asked: Asked, digest: bytes | None) -> None:
        """Look who it is while it waits: so long its number is nobody else's."""
        if self._is_one_of_us(asked.tid):
            self._answer(asked, k.FAN_ALLOW)
            return
        told = _told(asked, digest)
        self._answer(asked, k.FAN_DENY)
        self._tell(told)

    def _is_one_of_us(self, tid: int) -> bool:
        """It is in our own mount namespace, and looks into the workload's from there."""
        try:
            return os.stat(f"/proc/{tid}/ns/mnt").st_ino == self._home  # noqa: PTH116
        except OSError:
            return False

    def _answer(self, asked: Asked, response: int) -> None:
        asked.answered = True
        with suppress(OSError):  # it was killed while it waited
            os.write(self._group, _RESPONSE.pack(asked.descriptor, response))

    # To the measurer, without ever waiting for it.

    def _tell(self, word: Word) -> None:
        if len(self._unsent) >= _MOST_UNSENT and isinstance(word, Refused):
            self._untold += 1
        else:
            self._unsent.append(word)
            self._send_on()

    def _send_on(self) -> None:
        try:
            while self._unsent:
                self._control.send(encode(self._unsent[0]))
                self._unsent.popleft()
            if self._untold:
                self._control.send(encode(Untold(self._untold, "more were refused than could be told in time")))
                self._untold = 0
        except OSError:  # it reads nothing now; if it has hung up, that is heard
            return


def _read_list(descriptor: int) -> frozenset[bytes]:
    """Raises ValueError for a file that is no list: this process ends, and says so by that."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    if len(content) % _DIGEST_BYTES:
        raise ValueError("a list that is cut short")
    return frozenset(content[at : at + _DIGEST_BYTES] for at in range(0, len(content), _DIGEST_BYTES))


def _told(asked: Asked, digest: bytes | None) -> Refused:
    folder = f"/proc/{asked.tid}"
    status = _status(folder)
    inside = status.get("NStgid", "").split()
    return Refused(
        at=boottime() - (monotonic() - asked.came),
        link=_link(f"/proc/self/fd/{asked.descriptor}"),
        digest=digest.hex() if digest is not None else "",
        deleted=asked.deleted,
        pid=int(status.get("Tgid", asked.tid)),
        executable=_link(f"{folder}/exe").removesuffix(_GONE),
        parent=int(status.get("PPid", 0)),
        inside=int(inside[-1]) if len(inside) > 1 else 0,
    )


def _status(folder: str) -> dict[str, str]:
    try:
        with open(f"{folder}/status", encoding="utf-8", errors="replace") as file:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    except OSError:
        return {}


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - the kernel's text, as it is
    except OSError:
        return ""
