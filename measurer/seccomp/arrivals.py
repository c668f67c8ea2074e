"""Where container runtimes hand over listeners: the socket that a seccomp profile names as its `listenerPath`.

A runtime connects before the container's program runs, says which container it is about, sends the listener beside
that and waits for no answer (OCI runtime-spec, config-linux.md, "The Container Process State"). What it hands over is
kept until a sidecar has that container's first process measured, and again from when that sidecar ends: meanwhile calls
wait.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

from attestation import strictjson
from attestation.errors import InvalidInput
from measurer import kernel as k
from measurer.loop import Loop
from measurer.scope import pid_of
from measurer.seccomp.listener import is_listener, is_over

MOST_KEPT, MOST_OF_ONE, MOST_CALLERS = 1024, 16, 16
"""Listeners that nobody has claimed yet, of all containers and of one; runtimes that speak at once."""
_SAYS_WITHIN = 5.0
_MOST_BYTES = 64 * 1024
_MOST_DESCRIPTORS = 4
_UCRED = struct.Struct("3i")
_LISTENER = "seccompFd"
_MOST_PID = 1 << 22
Take = Callable[[int, bool], None]


@dataclass(frozen=True, slots=True)
class _Kept:
    """pidfd: of the container's first process. first: that is itself under the filter."""

    pid: int
    pidfd: int
    descriptor: int
    first: bool

    @property
    def over(self) -> bool:
        return k.has_ended(self.pidfd) or is_over(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self.pidfd)


@dataclass(frozen=True, slots=True)
class _Claim:
    """By whoever has this process measured. loop: what its `take` is a part of."""

    pidfd: int
    loop: Loop
    take: Take


class Arrivals:
    """Of one node. loop: what listening is a part of."""

    def __init__(self, loop: Loop, listening: socket.socket) -> None:
        self._loop, self._listening = loop, listening
        self._uids = {0, os.geteuid()}
        self._kept: list[_Kept] = []
        self._claims: dict[int, _Claim] = {}
        self._callers = 0
        loop.watch(listening.fileno(), self._accept)

    def claim(self, pidfd: int, loop: Loop, take: Take) -> None:
        """What there is of the container whose first process this is, and what comes later, goes to `take`."""
        self._claims[pidfd] = _Claim(pidfd, loop, take)
        self._hand_out()

    def leave(self, pidfd: int) -> None:
        """No more to this one."""
        self._claims.pop(pidfd, None)

    def give_back(self, pidfd: int, descriptor: int, *, first: bool) -> None:
        """Whoever had claimed it ends: it is the next one's, who may be there already."""
        self._claims.pop(pidfd, None)
        try:
            self._keep(_Kept(pid_of(pidfd), os.dup(pidfd), descriptor, first))
        except OSError:  # no descriptor is left
            os.close(descriptor)
        self._hand_out()

    def close(self) -> None:
        """Calls that wait fail (ENOSYS)."""
        self._loop.forget(self._listening.fileno())
        self._listening.close()
        for each in self._kept:
            each.close()
        self._kept.clear()

    # What a runtime says.

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return
        _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self._uids or self._callers >= MOST_CALLERS:
            connection.close()
            return
        connection.setblocking(False)
        self._callers += 1
        _Caller(connection, self._loop, self._said)

    def _said(self, text: bytes, descriptors: list[int]) -> None:
        """All of it. Descriptors that it does not name as listeners are none of ours."""
        self._callers -= 1
        try:
            pid, position, first = state(text)
            listener = descriptors[position]
            pidfd = os.pidfd_open(pid)
        except (InvalidInput, IndexError, OSError) as error:
            sys.stderr.write(f"measurer: a seccomp listener was not handed over: {error}\n")
        else:
            descriptors.remove(listener)
            self._keep(_Kept(pid, pidfd, listener, first))
            self._hand_out()
        for each in descriptors:
            os.close(each)

    def _keep(self, kept: _Kept) -> None:
        """One too many is closed, so that its calls fail (ENOSYS)."""
        for each in [each for each in self._kept if each.over]:
            self._kept.remove(each)
            each.close()
        alike = sum(each.pid == kept.pid for each in self._kept)
        if not is_listener(kept.descriptor) or len(self._kept) >= MOST_KEPT or alike >= MOST_OF_ONE:
            kept.close()
        else:
            self._kept.append(kept)

    def _hand_out(self) -> None:
        for kept in list(self._kept):
            claims = (each for each in self._claims.values() if not each.loop.closed and _same(each.pidfd, kept))
            claim = next(claims, None)
            if claim is not None:
                self._kept.remove(kept)
                os.close(kept.pidfd)
                claim.loop.within(claim.take, kept.descriptor, kept.first)


class _Caller:
    """One runtime that speaks. said: called once, when it has hung up or was given up."""

    def __init__(self, connection: socket.socket, loop: Loop, said: Callable[[bytes, list[int]], None]) -> None:
        self._connection, self._loop, self._said = connection, loop, said
        self._text = b""
        self._descriptors: list[int] = []
        self._patience = f"runtime {connection.fileno()}"
        loop.watch(connection.fileno(), self._read)
        loop.after(self._patience, _SAYS_WITHIN, self._over)

    def _read(self) -> None:
        try:
            text, found, _, _ = socket.recv_fds(
                self._connection, _MOST_BYTES, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            text, found = b"", []
        self._text += text
        self._descriptors += found
        if not text or len(self._text) > _MOST_BYTES or len(self._descriptors) > _MOST_DESCRIPTORS:
            self._over()

    def _over(self) -> None:
        self._loop.cancel(self._patience)
        self._loop.forget(self._connection.fileno())
        self._said(self._text, self._descriptors)
        self._connection.close()


def state(text: bytes) -> tuple[int, int, bool]:
    """The pid of the container's first process, which of the descriptors is the listener, and whether that process is
    the one that is put under the filter, and not one that is added. Raises InvalidInput.

    While a container is being made its state may not know the pid yet: then the process that is begun is the first.
    """
    try:
        said = strictjson.loads(text)
        begun = said["pid"]
        pid = said["state"].get("pid") or begun
        position = said["fds"].index(_LISTENER)
    except (InvalidInput, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidInput("this is no container's process state", where="seccomp", mend="Use runc or crun.") from error
    if type(pid) is not int or not 0 < pid < _MOST_PID:
        raise InvalidInput(f"{pid!r} is no pid", where="seccomp")
    return pid, position, begun == pid


def _same(pidfd: int, kept: _Kept) -> bool:
    """Both are held, so that a pid that is the same is of the same process."""
    return pid_of(pidfd) == kept.pid and not k.has_ended(kept.pidfd)
