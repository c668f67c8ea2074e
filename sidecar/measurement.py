"""The sidecar's end of the measurer: spawns or calls it, hands it orders, passes on what it sees at once.

Reading is one callback of the event loop: a datagram is decoded and handed over before the next line of any other
task runs, because the way from a fact to Envoy must not wait for anything.
"""

from __future__ import annotations

import array
import asyncio
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attestation.channel import MOST_BYTES, Message, decode, encode
from attestation.errors import InvalidInput, Unavailable

_MOST_DESCRIPTORS = 4
_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Spawned:
    """A measurer that waits for its scope. process: None where it is the node's, which goes on when the channel ends;
    ours ends by itself then."""

    process: subprocess.Popen[bytes] | None
    channel: socket.socket
    pid: int

    def dismiss(self) -> None:
        """It is not needed after all."""
        self.channel.close()
        if self.process is not None:
            self.process.wait()


def spawn() -> Spawned:
    """Starts one, in a session of its own, so that a signal meant for us does not end our guardian."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "measurer", "--channel", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    ours.setblocking(False)
    return Spawned(process, ours, process.pid)


def call(path: Path, uid: int) -> Spawned:
    """The node's measurer, which has to be this user's process. Raises Unavailable."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.setblocking(False)
        channel.connect(str(path))
        pid, owner, _ = _UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except OSError as error:
        channel.close()
        raise Unavailable(
            f"the node's measurer cannot be called: {error.strerror}",
            where=f"measurer.socket: {path}",
            mend="Start it (`proofbeat measurer --listen`), with this sidecar's user among those that it allows.",
        ) from error
    if owner != uid:
        channel.close()
        raise Unavailable(
            f"user {owner} listens there, and not user {uid}",
            where=f"measurer.socket: {path}",
            mend="Say in `measurer.uid` whose process the node's measurer is.",
        )
    return Spawned(None, channel, pid)


class Measurer:
    """A running measurer. After it was lost, another one may be started.

    on_message: called for each message, with the layer's body where one came along.
    on_lost: called once when the process, the channel or its language fails; nothing comes after it.
    """

    def __init__(self, on_message: Callable[[Message, bytes | None], None], on_lost: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._socket: socket.socket | None = None
        self._spawned: Spawned | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def pid(self) -> int:
        """0 before the start."""
        return self._spawned.pid if self._spawned else 0

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def start(self, loop: asyncio.AbstractEventLoop, spawned: Spawned) -> None:
        """Takes over a measurer that was spawned or called."""
        self._socket, self._spawned, self._loop = spawned.channel, spawned, loop
        loop.add_reader(spawned.channel.fileno(), self._readable)

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """One datagram, at once. A measurer that does not read its channel is as good as dead: on_lost."""
        if self._socket is None:
            return
        ancillary = []
        if descriptor is not None:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        try:
            self._socket.sendmsg([encode(message)], ancillary)
        except OSError as error:
            self._lose(f"its channel does not take orders: {error.strerror}")

    def stop(self) -> None:
        """Closes the channel, which the measurer answers by acting as guardian, and ours by ending."""
        self.hang_up()
        process = self._spawned.process if self._spawned is not None else None
        if process is not None:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def hang_up(self) -> None:
        """Nothing is heard of it any more."""
        if self._socket is not None and self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        while self._socket is not None:
            try:
                datagram, ancillary, flags, _ = self._socket.recvmsg(
                    MOST_BYTES, socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
                )
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(f"its channel failed: {error.strerror}")
                return
            descriptors = _descriptors(ancillary)
            try:
                self._received(datagram, flags, descriptors)
            finally:
                for each in descriptors:
                    os.close(each)

    def _received(self, datagram: bytes, flags: int, descriptors: list[int]) -> None:
        if not datagram:
            self._lose("its process ended")
            return
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            self._lose("a message was cut short")
            return
        try:
            message = decode(datagram)
        except InvalidInput as error:
            self._lose(f"it speaks another language: {error.sentence}")
            return
        self._on_message(message, _content(descriptors[0]) if descriptors else None)

    def _lose(self, reason: str) -> None:
        if self._socket is not None:
            self.hang_up()
            self._on_lost(reason)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _content(descriptor: int) -> bytes:
    """A layer's body. Raises Unavailable when the descriptor is no memory file."""
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return b""
        with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
            return bytes(mapped)
    except OSError as error:
        raise Unavailable(f"a layer's body cannot be read: {error.strerror}", where="measurer channel") from error
