"""The kernel's side of seccomp notifications: what is asked, how it is answered (linux/seccomp.h, seccomp_unotify(2)).

A filter that says SECCOMP_RET_USER_NOTIF has its task wait in the call until whoever holds the listener has answered.
No argument of the call is looked at here: what a pointer leads to may be another thing by the time that the kernel
reads it, while the number of the call is fixed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attestation import calls
from attestation.errors import InvalidInput
from measurer import kernel as k

MOST_A_TURN = 16
"""Calls that are answered before anything else has its turn: about a millisecond."""
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_SIZES = struct.Struct("=3H")
_RECEIVE, _SEND, _IS_VALID, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40082104
_CONTINUE, _WAKE_ON_THE_SAME = 1, 1
_GET_NOTIFICATION_SIZES = 3
_KIND = "anon_inode:seccomp notify"
_X32 = 0x40000000
_ARCHITECTURES = {0xC000003E: "x86_64", 0xC00000B7: "aarch64"}
"""linux/audit.h: those whose calls have names of their own."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A task waits in a call. thread: as our pid namespace numbers it; 0 where it is not in that. call: its name."""

    id: int
    thread: int
    call: str


class Listener:
    """Takes over the descriptor. Raises InvalidInput, and closes it, for one that is no listener."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        if not is_listener(descriptor):
            os.close(descriptor)
            raise InvalidInput("this descriptor is no seccomp listener", where="seccomp", mend="Send the filter's own.")
        with suppress(OSError):  # Linux 6.6: whoever waits wakes us on its own processor, and we it
            fcntl.ioctl(descriptor, _SET_FLAGS, _WAKE_ON_THE_SAME)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    @property
    def over(self) -> bool:
        """Nobody is left under its filter."""
        return is_over(self.descriptor)

    def asked(self) -> Iterator[Asked]:
        """Who waits, one after the other, and not too many at once. Each has to be answered."""
        for _ in range(MOST_A_TURN):
            if not any(events & select.POLLIN for _, events in self._poll.poll(0)):
                return
            buffer = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(self.descriptor, _RECEIVE, buffer)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # a signal has ended its wait, or comes to us
                    continue
                raise
            id_, thread, _, number, architecture, *_ = _NOTIFICATION.unpack(buffer)
            yield Asked(id_, thread, _named(number, architecture))

    def still_waits(self, asked: Asked) -> bool:
        """Is the task that its number was given to still the one that asked?"""
        try:
            fcntl.ioctl(self.descriptor, _IS_VALID, struct.pack("=Q", asked.id))
        except OSError:
            return False
        return True

    def let_through(self, asked: Asked) -> None:
        """The call goes on as if there were no filter."""
        self._answer(asked, 0, _CONTINUE)

    def refuse(self, asked: Asked) -> None:
        """It fails with EPERM."""
        self._answer(asked, -errno.EPERM, 0)

    def close(self) -> None:
        """Whoever waits, and whoever makes such a call from now on, gets ENOSYS, unless somebody else holds it too."""
        os.close(self.descriptor)

    def _answer(self, asked: Asked, error: int, flags: int) -> None:
        with suppress(FileNotFoundError):  # it waits no more
            fcntl.ioctl(self.descriptor, _SEND, _ANSWER.pack(asked.id, 0, error, flags))


def is_listener(descriptor: int) -> bool:
    """As the kernel names it."""
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink()) == _KIND
    except OSError:
        return False


def is_over(descriptor: int) -> bool:
    """Is nobody left under the filter of this listener?"""
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def trial() -> None:
    """Does this kernel have notifications as we know them? Raises OSError."""
    sizes = ctypes.create_string_buffer(_SIZES.size)
    k.seccomp(_GET_NOTIFICATION_SIZES, 0, sizes)
    if _SIZES.unpack(sizes.raw)[:2] != (_NOTIFICATION.size, _ANSWER.size):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _named(number: int, architecture: int) -> str:
    table = _ARCHITECTURES.get(architecture)
    if table is None:
        return calls.COMPAT
    if table == "x86_64" and number & _X32:
        return calls.X32
    return calls.named()(number)
