"""The collector of the files layer: events in, file facts and observations out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import SystemRandom

from attestation import manifest
from attestation.channel import Observed
from attestation.coverage import FILES, CollectorCoverage, Mechanism
from attestation.digests import Digest
from attestation.facts import Actor, CollectorFact, CollectorState, FileChange, FileFact
from attestation.layers import Layer, Method
from attestation.manifest import DIRECTORY, FILE, HEAD, LINK, NO_DIGEST
from attestation.observation import Observation
from measurer.channel import Channel, sealed
from measurer.clock import boottime, monotonic
from measurer.files.chance import UNIT, Chance
from measurer.files.events import FileEvent, Watch
from measurer.files.fanotify import Fanotify
from measurer.files.inotify import Inotify
from measurer.files.manifest import Folder, Record, Tree
from measurer.files.mappings import mapped
from measurer.files.patterns import Volatile
from measurer.files.scan import Change, Scanner
from measurer.heartbeat import Heartbeat, Nameless
from measurer.loop import TURN, Loop
from measurer.processes.held import Held

NAME = FILES
LATENCY_MS = 5.0
_SHARE = 4
"""Observations that follow events take at most one part in so many of the thread's time."""

_MAPPINGS, _REREADING = "files mappings", "files re-reading"
_INTERVAL = 1.0
"""Seconds between two looks for mappings."""
_LOOKING, _HASHING = 500, 50
"""Looking for mappings, and reading what is mapped, take at most one part in so many of the thread's time."""
_PROBE = b"//probe"
"""Where our own events come from: no path of a tree begins so."""

_TRIES = 16
"""How often a measurement waits for what is new: what never rests is told as it is."""


@dataclass(frozen=True, slots=True)
class Request:
    not_before: float
    full: bool


class Files:
    """Watches, scans and reports.

    who: names the executable of a pid that may be gone already. members: the workload's processes. covered: our
    coverage changed. capabilities: as Scope has it. most: entries; with more the measurement fails.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        root: int,
        include: tuple[str, ...],
        volatile: tuple[tuple[tuple[str, ...], ...], ...],
        who: Callable[[int], str],
        members: Callable[[], list[Held]],
        covered: Callable[[], None],
        *,
        capabilities: bool,
        most: int,
    ) -> None:
        self._loop, self._channel = loop, channel
        self._who, self._members, self._covered = who, members, covered
        self._immutable = False
        self._chance: Chance | None = None
        self._elsewhere: set[tuple[int, bytes]] = set()
        self._patterns = Volatile(volatile)
        self._tree = Tree([os.fsencode(each) for each in include])
        self._watch, self._refusal = _best_watch()
        self._scanner = Scanner(
            root,
            self._tree,
            self._patterns,
            self._add,
            self._add_file,
            self._drop,
            self._changed,
            self._written,
            loop.begin,
            capabilities=capabilities,
            most=most,
        )
        self._requests: list[Request] = []
        self._measuring = self._closed = False
        self._running, self._lost, self._events = True, 0, 0
        self._event_began = self._full_began = self._lost_at = 0.0
        self._dirty, self._untold = True, False
        self._digest: Digest = ""
        self._items, self._rest_until = 0, 0.0
        self._reading: Iterator[FileEvent] | None = None
        self._reading_began = 0.0
        loop.watch(self._watch.descriptor, self.read_on)
        self._probe = _nameless()
        self._heartbeat = Heartbeat(loop, NAME, self._send_probe, self._tell_pace)

    def rule(self, *, immutable: bool, reread: float) -> None:
        """From now on, as Scope has them."""
        self._immutable = immutable
        self._chance = Chance(reread, SystemRandom()) if reread > 0 else None

    def close(self) -> None:
        """Watch no more and say no more. Work under way runs out in silence."""
        self._closed = True
        self._loop.forget(self._watch.descriptor)
        self._watch.close()
        self._heartbeat.close()
        if self._probe is not None:
            self._probe.close()
        for name in ("files measurement", "files observation", "files events", _MAPPINGS, _REREADING):
            self._loop.cancel(name)

    @property
    def coverage(self) -> CollectorCoverage:
        detail = "; ".join(each for each in (self._refusal, self._watch.detail) if each)
        return CollectorCoverage(
            NAME, Layer.FILES, self._watch.mechanism, LATENCY_MS, self._running, self._lost, detail
        )

    def measure(self, not_before: float, full: bool) -> None:
        """Send an observation that begins at or after `not_before`."""
        self._requests.append(Request(not_before, full))
        self._next()

    def read_events(self) -> bool:
        """Take what the kernel has, tell the facts, then have a fresh observation sent.

        False where others have their turn first: what is left is taken after that.
        """
        if self._reading is None:
            self._reading, self._reading_began = self._watch.read(), boottime()
        end = monotonic() + TURN
        try:
            for event in self._reading:
                self._handle(event)
                if monotonic() > end:
                    self._loop.after("files events", 0.0, self.read_on)
                    return False
        except OSError as error:
            self._die(error)
        else:
            self._event_began = self._reading_began
            self._say_refused()
        self._reading = None
        return True

    def read_on(self) -> None:
        """What the kernel has, as far as a turn goes."""
        self.read_events()

    def _send_probe(self) -> None:
        """Through the same queue as all else; where there is no such folder, the turns alone are timed."""
        if self._probe is None or not self._running:
            self._heartbeat.heard()
            return
        self._watch.add(self._probe.descriptor, Folder(_PROBE))
        self._probe.change()

    def _tell_pace(self, state: CollectorState, detail: str) -> None:
        if self._running:
            self._channel.send(CollectorFact(boottime(), NAME, state, detail))

    def _handle(self, event: FileEvent) -> None:
        if event.folder == _PROBE:
            self._heartbeat.heard()
        elif event.lost:
            self._heartbeat.heard()
            self._lost += 1
            self._lost_at = boottime()
            self._tell_state(CollectorState.OVERFLOWED, "the kernel's event queue ran over; everything is read again")
            self.measure(self._lost_at, full=True)
        elif event.name:
            actor = self._actor(event.pid)
            self._scanner.touch(event.folder, event.name, actor, wrote=event.wrote)
        elif event.folder in self._tree.folders and self._tree.folders[event.folder].only is not None:
            self.measure(boottime(), full=False)  # a folder on the way to an included path went or moved

    def _actor(self, pid: int) -> Actor | None:
        return Actor(pid, self._who(pid)) if pid else None

    def _next(self) -> None:
        if self._measuring or not self._requests:
            return
        due = max(each.not_before for each in self._requests)
        wait = due - boottime()
        if wait > 0:
            self._loop.after("files measurement", wait, self._next)
            return
        full = any(each.full for each in self._requests) or not self._scanner.has_baseline
        self._requests.clear()
        self._measuring = True
        began = boottime()
        self._scanner.read_all(full, lambda: self._measured(began, full))

    def _measured(self, began: float, full: bool, tries: int = _TRIES) -> None:
        """Told once all is taken in that happened while it was read, so that it is of one moment.

        Otherwise a folder that was swapped for another by a link would be missing beside the link to the old one.
        """
        if self._closed:
            return
        caught_up = self.read_events()
        if tries and not (caught_up and self._scanner.settled):
            self._scanner.then(lambda: self._measured(began, full, tries - 1))
            return
        self._measuring = False
        if full:
            self._full_began = began
        self._read_again_from_now_on()
        self._event_began = max(self._event_began, began)
        self._say_refused()
        self._observe(Method.FULL if full else Method.INCREMENTAL, began)
        self._next()

    def _read_again_from_now_on(self) -> None:
        """What is mapped, at a period; what chance picks, at its own."""
        self._elsewhere.clear()
        self._loop.look_after(_MAPPINGS, _INTERVAL, self._look_for_mappings)
        if self._chance is not None:
            self._chance.fill(self._scanner.listing())
            self._loop.after(_REREADING, self._chance.gap(), self._reread_by_chance)

    def _look_for_mappings(self) -> None:
        self._loop.begin(self._reread_mapped())

    def _reread_mapped(self) -> Iterator[None]:
        """The longer it takes, the longer it rests: a large file mapped for good must not take the processor."""
        begun, spent = monotonic(), 0.0
        found: dict[tuple[bytes, bytes], int] = {}
        for process in self._members():
            looked = monotonic()
            for inode, path in mapped(process):
                if (inode, path) not in self._elsewhere:
                    places = self._scanner.places(inode, path)
                    found.update(dict.fromkeys(places, process.pid))
                    if not places:
                        self._elsewhere.add((inode, path))
            spent += monotonic() - looked
            yield
        for (folder, name), pid in found.items():
            yield from self._scanner.reread(folder, [name], self._actor(pid))
        rest = max(spent * _LOOKING, (monotonic() - begun) * _HASHING if found else 0.0)
        if not self._closed:
            self._loop.look_after(_MAPPINGS, max(_INTERVAL, rest), self._look_for_mappings)

    def _reread_by_chance(self) -> None:
        if self._chance is None:
            return
        for path, unit in self._chance.draw():
            self._loop.begin(self._scanner.reread(path, self._scanner.names(path, unit * UNIT, UNIT)))
        self._loop.after(_REREADING, self._chance.gap(), self._reread_by_chance)

    def _observe_soon(self) -> None:
        if self._untold and self._scanner.has_baseline:
            self._loop.after("files observation", max(0.0, self._rest_until - monotonic()), self._observe_events)

    def _observe_events(self) -> None:
        if not self._untold or self._full_began < self._lost_at:
            return  # told meanwhile, or events were lost and only the full reading under way can say what is there
        if not self._scanner.settled:
            self._loop.after("files observation", 0.001, self._observe_events)
            return
        begun = monotonic()
        self._observe(Method.EVENT, self._event_began)
        self._rest_until = monotonic() + (monotonic() - begun) * _SHARE

    def _observe(self, method: Method, began: float) -> None:
        self._untold = False
        body = self._packed() if self._dirty else None
        observation = Observation(Layer.FILES, self._digest, method, began, self._full_began, self._items, self._events)
        self._channel.send(Observed(observation, body is not None), body)

    def _packed(self) -> int | None:
        """The manifest in a file, None where it is as it was told last. It is never in memory as a whole."""
        before, passing = self._digest, manifest.passing(self._tree.size)
        body = sealed("files layer", passing.through(self._tree.pieces()))
        self._digest, self._items, self._dirty = passing.digest, self._tree.entries, False
        if self._digest != before:
            return body
        os.close(body)
        return None

    def _changed(self, change: Change) -> None:
        if self._closed:
            return
        self._dirty = self._untold = True
        fact = fact_of(change, boottime())
        if fact is not None:
            self._events += 1
            self._channel.send(fact)
        self._observe_soon()

    def _written(self, path: bytes, actor: Actor | None) -> None:
        if self._immutable and not self._closed:
            self._events += 1
            self._channel.send(FileFact(boottime(), os.fsdecode(path), FileChange.WRITTEN, actor=actor))

    def _say_refused(self) -> None:
        missed, self._channel.refused_file_facts = self._channel.refused_file_facts, 0
        if missed:
            self._lost += missed
            self._tell_state(
                CollectorState.OVERFLOWED, f"the sidecar read too slowly: {missed} changes are in the next observation"
            )

    def _add(self, descriptor: int, folder: Folder) -> None:
        if self._closed:
            return
        try:
            self._watch.add(descriptor, folder)
        except OSError as error:
            self._fall_back(error)

    def _add_file(self, descriptor: int, folder: Folder, name: bytes) -> None:
        if self._closed:
            return
        try:
            self._watch.add_file(descriptor, folder, name)
        except FileNotFoundError:
            return  # gone again: the next event says so
        except OSError as error:
            self._fall_back(error)

    def _drop(self, folder: Folder) -> None:
        if self._closed:
            return
        self._watch.drop(folder)

    def _fall_back(self, error: OSError) -> None:
        """fanotify does not take this folder: start again with inotify, which then has to take them all."""
        if self._watch.mechanism is Mechanism.INOTIFY:
            self._die(error)
            return
        self._loop.forget(self._watch.descriptor)
        self._watch.close()
        self._watch, self._refusal = Inotify(), f"fanotify: {error.strerror}; writers are not known"
        self._loop.watch(self._watch.descriptor, self.read_on)
        self._covered()
        self.measure(boottime(), full=False)

    def _die(self, error: OSError) -> None:
        if self._running:
            self._running, self._refusal = False, f"{self._watch.mechanism}: {error.strerror}"
            self._loop.forget(self._watch.descriptor)
            self._tell_state(CollectorState.DEAD, self._refusal)

    def _tell_state(self, state: CollectorState, detail: str) -> None:
        self._channel.send(CollectorFact(boottime(), NAME, state, detail))
        self._covered()


def fact_of(change: Change, at: float) -> FileFact | None:
    """A difference between two records as a fact; None for folders, which are judged by what is in them."""
    path = os.fsdecode(change.path)
    was_file = change.before is not None and _content_of(change.before)[0] != DIRECTORY
    if change.after is None or _content_of(change.after)[0] == DIRECTORY:
        return FileFact(at, path, FileChange.REMOVED, actor=change.actor) if was_file else None
    _, kind, mode, uid, gid, _, content = HEAD.unpack_from(change.after)
    digest = content.hex()
    what = FileChange.MODIFIED
    if kind == FILE and digest == NO_DIGEST:
        what, digest = FileChange.UNREADABLE, ""
    elif not was_file:
        what = FileChange.ADDED
    elif change.before is not None and _content_of(change.before) == _content_of(change.after):
        what = FileChange.ATTRIBUTES
    capabilities = change.after[HEAD.size :].hex()
    return FileFact(at, path, what, digest, mode, uid, gid, change.actor, kind == LINK, capabilities)


def _content_of(record: Record) -> tuple[bytes, int, bytes]:
    _, kind, _, _, _, size, digest = HEAD.unpack_from(record)
    return kind, size, digest


def _nameless() -> Nameless | None:
    try:
        return Nameless()
    except OSError:
        return None


def _best_watch() -> tuple[Watch, str]:
    try:
        return Fanotify(), ""
    except OSError as error:
        return Inotify(), f"fanotify: {error.strerror}; writers are not known"
