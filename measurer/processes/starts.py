"""The collector of what processes are started with: scripts, and libraries that come before their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from errno import EIO

from attestation.facts import Actor, PreloadFact, ScriptFact, Sighting
from measurer.channel import Channel
from measurer.clock import boottime
from measurer.loop import Loop
from measurer.processes import startup
from measurer.processes.aside import Aside, Look
from measurer.processes.binaries import Binaries, Stamp
from measurer.processes.held import Held
from measurer.processes.membership import Member
from measurer.processes.startup import Library, Startup


class Starts:
    """root: the workload's. unknown: told of a process of which it cannot be found out, and why.

    overflowed: told when more begins than is looked at. worn_out: looking hangs time and again.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        root: int,
        unknown: Callable[[Held, str], None],
        overflowed: Callable[[str], None],
        worn_out: Callable[[OSError], None],
    ) -> None:
        self._channel, self._root = channel, root
        self._unknown, self._overflowed = unknown, overflowed
        self._aside = Aside(loop, lambda: worn_out(OSError(EIO, "looking at how processes began hangs")))
        self._binaries = Binaries(root)  # read by the other thread alone
        self._listed: tuple[Library, ...] = ()
        self.events = 0

    def close(self) -> None:
        self._aside.close()

    def forget(self) -> None:
        """Read every file again from now on."""
        self._binaries = Binaries(self._root)

    def afterwards(self, act: Callable[[], None]) -> None:
        """Once all is told of those that began until now."""
        self._aside.afterwards(act)

    def began(
        self,
        member: Member[Held],
        parent: int,
        sighting: Sighting,
        *,
        dynamic: bool = True,
        known: Container[Stamp] = (),
    ) -> None:
        """Look at how a process began. dynamic: it may load libraries. known: files that were told as executed."""
        folder = member.process.read(os.dup)
        if folder is None:
            return
        binaries = self._binaries
        look = Look(
            lambda: startup.read(folder, binaries, dynamic=dynamic),
            lambda found: self._tell(member.process, parent, sighting, found, known),
            lambda: self._unknown(member.process, "what it was started with cannot be read: it does not answer"),
            lambda: os.close(folder),
        )
        if not self._aside.take(look):
            self._overflowed("more began than can be looked at")

    def look_at_list(self, first: Held) -> None:
        """Is there an /etc/ld.so.preload now that was not there before, or another one?"""
        if first.read(_has_no_list):
            self._listed = ()
            return
        folder = first.read(os.dup)
        if folder is None:
            return
        binaries = self._binaries
        look = Look(
            lambda: _listed(folder, binaries),
            lambda found: self._tell_list(first, found),
            lambda: self._unknown(first, "its /etc/ld.so.preload cannot be read: it does not answer"),
            lambda: os.close(folder),
        )
        self._aside.take(look)

    def _tell(self, process: Held, parent: int, sighting: Sighting, found: Startup, known: Container[Stamp]) -> None:
        actor = Actor(process.pid, found.executable, parent)
        inside = process.pid_inside() if found.scripts or found.libraries else 0
        for each in found.scripts:
            if each.stamp not in known:
                self.events += 1
                fact = ScriptFact(boottime(), each.path, each.digest, actor, sighting, each.deleted, inside)
                self._channel.send(fact)
        for library in found.libraries:
            self._tell_library(library, actor, inside)
        if found.unknown:
            self._unknown(process, found.unknown)

    def _tell_list(self, first: Held, found: tuple[Library, ...]) -> None:
        before, self._listed = self._listed, found
        for each in found if found != before else ():
            self._tell_library(each, Actor(first.pid, first.executable()), first.pid_inside())

    def _tell_library(self, library: Library, actor: Actor, inside: int) -> None:
        self.events += 1
        each = library
        self._channel.send(PreloadFact(boottime(), each.source, each.entry, actor, each.path, each.digest, inside))


def _has_no_list(folder: int) -> bool:
    root = _root(folder)
    try:
        return startup.has_no_list(root)
    finally:
        os.close(root)


def _listed(folder: int, binaries: Binaries) -> tuple[Library, ...]:
    try:
        root = _root(folder)
    except OSError:
        return ()
    try:
        return startup.list_of(root, binaries)
    finally:
        os.close(root)


def _root(folder: int) -> int:
    return os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
