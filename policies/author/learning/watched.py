"""What one time of watching comes to: facts and measurements in, what was learned of them out. No clock, no I/O.

A call's set says where it came from: `startup` is what a program did in its first seconds, whichever it was; `ending`
what anything did after the workload was asked to end; `serving` is the rest. A call may be in all of them: the kernel's
programs tell each again after every turn.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from attestation.digests import Digest
from attestation.facts import (
    Actor,
    CallFact,
    ExecutionFact,
    Fact,
    FileChange,
    FileFact,
    InstanceFact,
    MemoryFact,
    PreloadFact,
    ScriptFact,
)
from attestation.memory import Code, CodeKind
from attestation.processes import ProcessKind
from policies.appraise.violation import violates
from policies.author.learning.convergence import Convergence
from policies.author.learning.learned import Amount, Contents, Learned, Origin, Origins, Run
from policies.author.references.build import writable
from policies.model.policy import AttestationPolicy
from policies.model.references import FileReference, ReferenceValues

STARTING, SERVING, ENDING = "startup", "serving", "ending"
STARTUP = 5.0
"""Seconds that belong to a program's start."""
_EARLY = 0.5
"""Seconds by which a call may be told before the execution that it came after: they come by two ways."""
_MOST_NAME = 15
"""Letters of a program's name, as the kernel keeps it: of whom was gone too soon nothing else is known."""
_MOST_REMEMBERED = 4096
_LOOSE = (CodeKind.ANONYMOUS, CodeKind.MEMFD)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measurement found; None, or empty, of layers that it was not about."""

    files: Mapping[str, FileReference] | None = None
    kinds: tuple[ProcessKind, ...] = ()
    code: tuple[Code, ...] = ()
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """run: an id for this time of watching. of: whom, for people. include, exempt: as of Learned."""

    run: str
    of: str
    machine: str
    include: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()


class Watched:
    """began: CLOCK_BOOTTIME seconds. fresh: nothing of it ran before then."""

    def __init__(self, subject: Subject, began: float, *, fresh: bool = False) -> None:
        self.convergence = Convergence()
        self._subject, self._began, self._fresh = subject, began, fresh
        self._running: frozenset[str] | None = frozenset() if fresh else None
        self._starts: dict[str, list[float]] = defaultdict(list)
        self._short: dict[str, list[float]] = defaultdict(list)
        self._calls: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._nobodys: dict[str, float] = {}
        self._called: set[str] = set()
        self._executables: Contents = {}
        self._begun: Contents = {}
        self._mapped: Contents = {}
        self._preload: Origins = {}
        self._volatile: Origins = {}
        self._code: dict[str, Amount] = {}
        self._files: Mapping[str, FileReference] | None = None
        self._remembered: dict[Fact, None] = {}
        self._ending: float | None = None
        self._over = False
        self._asked_of: set[str] = set()

    def at(self, boottime: float) -> float:
        """Seconds since it began."""
        return max(0.0, boottime - self._began)

    @property
    def size(self) -> tuple[int, int, int]:
        """Calls, executables, files that were mapped as code: so many are known by now."""
        return len(self._called), len(self._executables), len(self._mapped)

    # What is seen.

    def saw(self, fact: Fact) -> None:
        at = self.at(fact.at)
        match fact:
            case CallFact(call=call, process=process):
                self._calls[call, process.executable].append(at)
                self._nobodys.pop(call, None)
                self._is_called(call, at)
            case ExecutionFact(path=path, digest=digest, process=process):
                self._starts[path].append(at)
                self._short[posixpath.basename(path)[:_MOST_NAME]].append(at)
                self._found(self._executables, path, digest, self._origin(at, process.executable))
            case ScriptFact(path=path, digest=digest, process=process):
                self._found(self._begun, path, digest, self._origin(at, process.executable))
            case PreloadFact(path=path, digest=digest, entry=entry, process=process):
                self._found(self._begun, path, digest, self._origin(at, process.executable))
                self._found_once(self._preload, entry, self._origin(at, process.executable))
            case MemoryFact(code=code, process=process):
                self._mapped_as_code(code, self._origin(at, process.executable))
            case FileFact():
                self._file_changed(fact, at)
            case InstanceFact():
                self._over = True
        self._remember(fact)

    def measured(self, found: Measured, boottime: float) -> None:
        """What is there by now. The first time of files is what they are held against from then on."""
        at = self.at(boottime)
        if found.files is not None:
            self._files_are(found.files, at)
        if found.kinds and self._running is None:
            self._running = frozenset(kind.executable for kind in found.kinds)
        for path, digest in _executables(found.kinds):
            self._found(self._executables, path, digest, self._origin(at, ""))
        for code in found.code:
            self._mapped_as_code(code, self._origin(at, ""))
        for call in found.calls:
            if call not in self._called:
                self._nobodys[call] = at  # the kernel had no room to say whose it was, or says so next
                self._is_called(call, at)

    def anew(self) -> tuple[str, ...]:
        """Executables that were seen since this was asked last."""
        new = tuple(path for path in self._executables if path not in self._asked_of)
        self._asked_of.update(new)
        return new

    def asks_for(self, program: str, library: str, digest: Digest, boottime: float) -> None:
        """A program that was executed names this library among its own: it is mapped, whether that is seen or not."""
        self._found(self._mapped, library, digest, self._origin(self.at(boottime), program))

    def ends(self, boottime: float) -> None:
        """The workload is asked to end: what it does from now on is how it does that."""
        self._ending = self.at(boottime)

    # What it comes to.

    def learned(self, boottime: float, lost: int = 0) -> Learned:
        now = self.at(boottime) if self._ending is None else self._ending
        run = Run(
            id=self._subject.run,
            of=self._subject.of,
            machine=self._subject.machine,
            seconds=round(now, 3),
            quiet=round(self.convergence.quiet(now), 3),
            needed=round(self.convergence.needed, 3),
            running=tuple(sorted(self._running or ())),
            executed=tuple(sorted(path for path in self._starts if writable(path))),
            ended=self._over,
            lost=lost,
        )
        files = {path: each for path, each in (self._files or {}).items() if path not in self._volatile}
        return Learned(
            runs=(run,),
            include=self._subject.include,
            exempt=self._subject.exempt,
            files=files,
            volatile=self._volatile,
            executables=self._executables,
            begun=self._begun,
            mapped=self._mapped,
            preload=self._preload,
            code=self._code,
            calls=self._sets(),
        )

    def findings(self, policy: AttestationPolicy, references: ReferenceValues) -> tuple[str, ...]:
        """What of all that was seen would close it under this policy, for no reference value can allow it."""
        judged = (violates(fact, policy, references) for fact in self._remembered)
        return tuple(sorted({f"{each.kind}: {each.text}" for each in judged if each is not None}))

    def _sets(self) -> dict[str, Origins]:
        sets: dict[str, Origins] = {}
        for (call, maker), times in self._calls.items():
            for at in times:
                _first(sets.setdefault(self._set_of(maker, at), {}), call, self._origin(at, maker))
        for call, at in self._nobodys.items():
            _first(sets.setdefault(self._set_of("", at), {}), call, self._origin(at, ""))
        return {name: dict(sorted(calls.items())) for name, calls in sorted(sets.items())}

    def _set_of(self, maker: str, at: float) -> str:
        if self._ending is not None and at >= self._ending:
            return ENDING
        starts = self._starts.get(maker) or self._short.get(maker, [])
        before = bisect_right(starts, at + _EARLY)
        last = starts[before - 1] if before else 0.0 if self._fresh else None
        return STARTING if last is not None and at - last < STARTUP else SERVING

    # Each thing once.

    def _origin(self, at: float, maker: str) -> Origin:
        shown = maker if writable(maker) else ""
        return Origin.model_construct(run=self._subject.run, at=round(at, 3), maker=shown)

    def _is_called(self, call: str, at: float) -> None:
        if call not in self._called:
            self._called.add(call)
            self._news(at)

    def _found(self, table: Contents, path: str, digest: Digest, origin: Origin) -> None:
        if digest and path and writable(path):
            self._found_once(table.setdefault(path, {}), digest, origin)

    def _found_once(self, table: Origins, key: str, origin: Origin) -> None:
        if key and key not in table and writable(key):
            table[key] = origin
            self._news(origin.at)

    def _news(self, at: float) -> None:
        if self._ending is None:  # how it ends is asked for once, and by us
            self.convergence.news(at)

    def _mapped_as_code(self, code: Code, origin: Origin) -> None:
        if code.kind is CodeKind.FILE:
            self._found(self._mapped, code.path, code.digest, origin)
        if code.kind in _LOOSE or (code.kind is CodeKind.FILE and code.writable):
            self._had(code, origin)

    def _had(self, code: Code, origin: Origin) -> None:
        """The two kinds are measured apart, so that what is allowed is the greater of both."""
        known = self._code.get(code.executable)
        if not writable(code.executable):
            return
        if known is None:
            self._code[code.executable] = Amount.model_construct(
                most=code.amount, writable=code.writable, memfd=code.kind is CodeKind.MEMFD, origin=origin
            )
            self._news(origin.at)
            return
        more = {
            "most": max(known.most, code.amount),
            "writable": known.writable or code.writable,
            "memfd": known.memfd or code.kind is CodeKind.MEMFD,
        }
        if (known.most, known.writable, known.memfd) != tuple(more.values()):
            grown = {"origin": origin} if code.amount > known.most else {}
            self._code[code.executable] = known.model_copy(update={**more, **grown})
            self._news(origin.at)

    # Files: what was the same all the time is what may be, what was not is volatile.

    def _files_are(self, files: Mapping[str, FileReference], at: float) -> None:
        """A file that was written once, before the first measurement, is kept as it is: byte code is code."""
        stated = {path: each for path, each in files.items() if writable(path)}
        if self._files is None:
            self._files = stated
            return
        for path in self._files.keys() | stated.keys():
            if self._files.get(path) != stated.get(path):
                self._found_once(self._volatile, path, self._origin(at, ""))

    def _file_changed(self, fact: FileFact, at: float) -> None:
        if self._files is None or fact.change is FileChange.WRITTEN:
            return
        known = self._files.get(fact.path)
        if known is None or not _is_still(known, fact):
            maker = fact.actor.executable if fact.actor is not None else ""
            self._found_once(self._volatile, fact.path, self._origin(at, maker))

    # What may be a finding all the same.

    def _remember(self, fact: Fact) -> None:
        """Each once, whoever did it and when. Files that change are known otherwise."""
        if isinstance(fact, FileFact | CallFact | InstanceFact) or len(self._remembered) >= _MOST_REMEMBERED:
            return
        alike: dict[str, Any] = {"at": 0.0}
        actor: Actor | None = getattr(fact, "process", None)
        if actor is not None:
            alike["process"] = Actor(0, actor.executable)
        if hasattr(fact, "pid_inside"):
            alike["pid_inside"] = 0
        self._remembered.setdefault(replace(fact, **alike))


def _is_still(known: FileReference, fact: FileFact) -> bool:
    content = fact.change not in (FileChange.REMOVED, FileChange.UNREADABLE) and fact.digest in known.digests
    return content and known.mode in (None, fact.mode) and known.capabilities == fact.capabilities


def _executables(kinds: Iterable[ProcessKind]) -> Iterator[tuple[str, Digest]]:
    """With their loaders."""
    for kind in kinds:
        yield kind.executable, kind.digest
        if kind.loader:
            yield kind.loader, kind.loader_digest


def _first(known: Origins, key: str, origin: Origin) -> None:
    if key not in known or origin.rank < known[key].rank:
        known[key] = origin
