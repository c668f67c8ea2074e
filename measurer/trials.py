"""What the kernel lets us do, found out by doing it, in a way that leaves nothing behind."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping

from attestation.means import Means, Trial
from measurer import deadline, fencing
from measurer import kernel as k
from measurer.files.fanotify import Fanotify
from measurer.scope import Pinned
from measurer.seccomp import listener
from measurer.sockdiag import can_destroy


def tried(pinned: Pinned, told: Mapping[Means, int]) -> tuple[Trial, ...]:
    """told: errnos of what was tried already, 0 for what went well."""
    here = {
        Means.FILE_EVENTS: lambda: Fanotify().close(),
        Means.PROCESS_ACCESS: lambda: os.readlink("exe", dir_fd=pinned.proc),
        Means.FILE_ACCESS: _open_the_unreadable,
        Means.NETWORK_ENTRY: _enter_our_own_network,
        Means.DEADLINE: deadline.trial,
        Means.NOTIFICATIONS: listener.trial,
        Means.EGRESS_DENIAL: lambda: fencing.trial(pinned),
        Means.KILL: lambda: signal.pidfd_send_signal(pinned.pidfd, 0),
    }
    found = {**told, Means.SOCKET_DESTROY: can_destroy(), **{means: _errno(act) for means, act in here.items()}}
    return tuple(Trial(means, errno.errorcode.get(found.get(means, 0), "")) for means in Means)


def _errno(act: Callable[[], object]) -> int:
    try:
        act()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _open_the_unreadable() -> None:
    """A file without any permission: that we own it does not open it."""
    closed = os.memfd_create("unreadable", os.MFD_CLOEXEC)
    try:
        os.fchmod(closed, 0)
        os.close(os.open(f"/proc/self/fd/{closed}", os.O_RDONLY | os.O_CLOEXEC))
    finally:
        os.close(closed)


def _enter_our_own_network() -> None:
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        k.enter_network(here)
    finally:
        os.close(here)
