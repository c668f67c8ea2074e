"""Was this machine put back to an earlier moment, or held still without its clocks noticing?

A virtual machine that is restored from a snapshot goes on as if nothing had happened: its memory holds a lease, a key
and a measurement from before, and no timer fires. Three witnesses, of which any one is enough:

the kernel's word    VMGENID: a uevent of its driver (Linux 6.10) as soon as the guest runs again
the hypervisor's     vmclock: a page whose disruption marker has changed, looked at with each beat
the authority's      between two of its nonces more time has passed for it than for us; late by a round, but it needs
                     nothing of the hypervisor

A step of the authority's own clock looks the same as the last, and closes likewise until attested again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from attestation.digests import Digest
from sidecar import clock
from wire.messages import Answer, Nonce, Push
from wire.session import AuthorityClient, Endpoint

RESTORED = "the-machine-was-restored"
LEFT_BEHIND = "more-time-passed-for-the-authority"

_SLACK = 2.0
"""Seconds that the authority may be ahead between two nonces: its clock is steered, and may be one of several."""
_DRIFT = 0.001
"""And for each second that passed: twice what NTP slews a clock at most."""

_NETLINK_KOBJECT_UEVENT, _KERNEL_GROUP = 15, 1
_MOST_BYTES = 16 * 1024
_VMCLOCK = Path("/dev/vmclock0")
_HEAD = struct.Struct("<II")
_SEQUENCE, _MARKER = struct.Struct("<I"), struct.Struct("<Q")
_SEQUENCE_AT, _MARKER_AT, _PAGE_BYTES = 12, 16, 32
_MAGIC = 0x4B4C4356  # linux/vmclock-abi.h: VCLK
_MOST_TRIES = 8


@dataclass(slots=True)
class Pace:
    """The authority's clock against CLOCK_BOOTTIME, from nonce to nonce. All in seconds."""

    _last: tuple[float, float] | None = field(default=None, init=False)

    def heard(self, issued: float, sent: float, received: float) -> bool:
        """A nonce issued then by the authority's clock, asked for and received then by ours. True if we fell behind."""
        last, self._last = self._last, (issued, sent)
        if last is None:
            return False
        ours_at_most = received - last[1]
        return issued - last[0] > ours_at_most + _SLACK + _DRIFT * ours_at_most


class PacedClient(AuthorityClient):
    """The authority's client, whose every nonce is held against our clock.

    left_behind: told before the answer is used.
    """

    def __init__(
        self, endpoint: Endpoint, on_push: Callable[[Push], None], *, left_behind: Callable[[str], None]
    ) -> None:
        super().__init__(endpoint, on_push)
        self._pace, self._left_behind = Pace(), left_behind

    async def challenge(self) -> Nonce:
        sent = clock.now().boot
        nonce = await super().challenge()
        self._compare(nonce, sent)
        return nonce

    async def attest(self, signed: bytes, bodies: Callable[[Digest], bytes]) -> Answer:
        sent = clock.now().boot
        answer = await super().attest(signed, bodies)
        self._compare(answer.nonce, sent)
        return answer

    def _compare(self, nonce: Nonce, sent: float) -> None:
        if self._pace.heard(nonce.issued_ms / 1000, sent, clock.now().boot):
            self._left_behind(LEFT_BEHIND)


class Restores:
    """Watches for the kernel's and the hypervisor's word. told: called with a reason, once a restore."""

    def __init__(self, told: Callable[[str], None], vmclock: Path = _VMCLOCK) -> None:
        self._told = told
        self._vmclock = vmclock
        self._socket: socket.socket | None = None
        self._marker: int | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Without either of them this machine can be restored unseen until the next round."""
        self._marker = marker(self._vmclock)
        with suppress(OSError):  # no netlink in here: the authority's word is left
            listening = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
                _NETLINK_KOBJECT_UEVENT,
            )
            self._socket = listening
            listening.bind((0, _KERNEL_GROUP))
            loop.add_reader(listening.fileno(), self._heard)

    def look(self) -> None:
        """With each beat."""
        before, self._marker = self._marker, marker(self._vmclock)
        if before != self._marker and before is not None:
            self._told(RESTORED)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._socket is not None:
            loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _heard(self) -> None:
        while self._socket is not None:
            try:
                datagram, sender = self._socket.recvfrom(_MOST_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._told(RESTORED)  # among the events that were lost may be that one
                return
            if sender[0] == 0 and tells_of_restore(datagram):
                self._told(RESTORED)


def tells_of_restore(uevent: bytes) -> bool:
    """Is this the word of the vmgenid driver (drivers/virt/vmgenid.c)? What root makes up by hand has other names."""
    words = uevent.split(b"\0")
    return b"ACTION=change" in words and b"NEW_VMGENID=1" in words


def marker(vmclock: Path) -> int | None:
    """The disruption marker of the page (linux/vmclock-abi.h); None where there is none to be read."""
    try:
        descriptor = os.open(vmclock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _read_marker(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _read_marker(descriptor: int) -> int | None:
    """An odd sequence, or one that changed meanwhile, is a page that is just being written."""
    for _ in range(_MOST_TRIES):
        page = os.pread(descriptor, _PAGE_BYTES, 0)
        if len(page) < _PAGE_BYTES or _HEAD.unpack_from(page)[0] != _MAGIC:
            return None
        again = os.pread(descriptor, _PAGE_BYTES, 0)
        sequence = _SEQUENCE.unpack_from(page, _SEQUENCE_AT)[0]
        if sequence % 2 == 0 and page[_SEQUENCE_AT:] == again[_SEQUENCE_AT:]:
            return int(_MARKER.unpack_from(page, _MARKER_AT)[0])
    return None
