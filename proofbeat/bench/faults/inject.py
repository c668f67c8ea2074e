"""How each fault is brought about and taken back. Each is done to processes of the mesh itself and to nothing else.

A fault is an asynchronous context: it has begun when the body is entered, and is undone when the body is left.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

from attestation.errors import Unavailable
from proofbeat.bench import cgroups
from proofbeat.bench.faults.plan import Fault, Kind, Target
from proofbeat.bench.faults.stage import Stage, mount, unmount

PAGE = 4096
MORE_THAN_A_QUEUE = 17_000
"""Files made and removed again: one event each, since the kernel merges those of one name, above the 16,384 that a
fanotify group keeps."""
HOURS = 2 * 3600.0
FLIPPED = 64

Undo = AbstractAsyncContextManager[None]


def injected(stage: Stage, fault: Fault) -> Undo:
    """The fault as a context."""
    return _HOW[fault.kind](stage, fault)


def _send(stage: Stage, fault: Fault, number: signal.Signals) -> list[int]:
    """Pidfds of those who got it, so that what undoes it cannot hit a stranger."""
    reached = []
    for pid in stage.pids(fault.target, fault.side):
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            signal.pidfd_send_signal(pidfd, number)
            reached.append(pidfd)
    return reached


@asynccontextmanager
async def _nothing(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _kill(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    for pidfd in _send(stage, fault, signal.SIGKILL):
        os.close(pidfd)
    yield


@asynccontextmanager
async def _stop(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    stopped = _send(stage, fault, signal.SIGSTOP)
    try:
        yield
    finally:
        for pidfd in stopped:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            os.close(pidfd)


@asynccontextmanager
async def _out_of_memory(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """Cgroup v1: what was charged before stays with the old group, so that the next page already is one too many."""
    with cgroups.limited("memory", {"memory.limit_in_bytes": PAGE}, stage.pids(fault.target, fault.side)):
        yield


@asynccontextmanager
async def _throttle(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    with cgroups.throttled(stage.pids(fault.target, fault.side)):
        yield


@asynccontextmanager
async def _memory_refused(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    with _limited(resource.RLIMIT_AS, _address_space, stage.pids(fault.target, fault.side)):
        yield


@asynccontextmanager
async def _descriptors(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    with _limited(resource.RLIMIT_NOFILE, _lowest_free_descriptor, stage.pids(fault.target, fault.side)):
        yield


@asynccontextmanager
async def _disk_full(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """The sidecar is killed as well: it writes when it starts."""
    folder = _folder(stage, fault)
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(PAGE)) == PAGE:
            pass
    if fault.target is Target.SIDECAR:
        _kill_now(stage, fault)
    try:
        yield
    finally:
        filler.unlink()


@asynccontextmanager
async def _read_only(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """For whoever opens something there from now on, so the target is killed and has to start under it."""
    folder = str(_folder(stage, fault))
    mount("--bind", folder, folder)
    mount("-o", "remount,bind,ro", folder)
    _kill_now(stage, fault)
    try:
        yield
    finally:
        unmount(folder)


@asynccontextmanager
async def _corrupt(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """Bytes change on disk. Taken back from a copy, as an operator would, with nobody writing meanwhile."""
    if fault.target is Target.SIDECAR:
        _kill_now(stage, fault)
        latch = _folder(stage, fault) / "latch.jsonl"
        before = latch.read_bytes()
        latch.write_bytes(before + b'{"instance":\xff\n')
        try:
            yield
        finally:
            latch.write_bytes(before)
    else:
        async with _corrupt_store(stage, fault):
            yield


@asynccontextmanager
async def _corrupt_store(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    store = stage.layout.store
    stage.held_back.add(Target.AUTHORITY)
    await _end_authority(stage, fault)
    with closing(sqlite3.connect(store)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    saved = store.read_bytes()
    _flip(store, fault.number)
    stage.held_back.discard(Target.AUTHORITY)
    try:
        yield
    finally:
        stage.held_back.add(Target.AUTHORITY)
        await _end_authority(stage, fault)
        for suffix in ("-wal", "-shm"):
            store.with_name(store.name + suffix).unlink(missing_ok=True)
        store.write_bytes(saved)
        stage.held_back.discard(Target.AUTHORITY)


@asynccontextmanager
async def _socket_removed(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    path = _socket(stage, fault)
    aside = path.with_suffix(".aside")
    path.rename(aside)
    try:
        yield
    finally:
        # Whoever put a new one there meanwhile is right to keep it.
        if path.exists():
            aside.unlink(missing_ok=True)
        elif aside.exists():
            aside.rename(path)


@asynccontextmanager
async def _socket_replaced(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """Something else listens at the path, and answers nobody."""
    path = _socket(stage, fault)
    aside = path.with_suffix(".aside")
    path.rename(aside)
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(str(path))
        impostor.listen()
        ours = path.stat().st_ino
        try:
            yield
        finally:
            if path.exists() and path.stat().st_ino == ours:
                aside.rename(path)
            else:
                aside.unlink(missing_ok=True)


@asynccontextmanager
async def _clock(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """The authority comes back with a clock that is hours off; half of the faults set it ahead, half back."""
    stage.held_back.add(Target.AUTHORITY)
    await _end_authority(stage, fault)
    try:
        # One that does not come up in time is away instead: the judge knows both, and the run goes on.
        with suppress(Unavailable):
            await stage.scene.start_authority(ahead=HOURS if fault.number % 2 else -HOURS)
        yield
    finally:
        await _end_authority(stage, fault)
        stage.held_back.discard(Target.AUTHORITY)


@asynccontextmanager
async def _events_overrun(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    pages = stage.standing(fault.side).side.app / "pages"
    async with _stop(stage, fault):
        for number in range(MORE_THAN_A_QUEUE):
            path = pages / f"burst-{number}"
            path.touch()
            path.unlink()
        yield


@contextmanager
def _limited(kind: int, limit: Callable[[int], int], pids: tuple[int, ...]) -> Iterator[None]:
    """The soft limit lowered for a while (prlimit(2))."""
    before = {}
    for pid in pids:
        with suppress(ProcessLookupError):
            before[pid] = resource.prlimit(pid, kind)
            resource.prlimit(pid, kind, (limit(pid), before[pid][1]))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, kind, limits)


def _address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def _lowest_free_descriptor(pid: int) -> int:
    """The limit under which what is open stays usable, and nothing more can be opened."""
    taken = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _folder(stage: Stage, fault: Fault) -> Path:
    return stage.layout.store.parent if fault.target is Target.AUTHORITY else stage.standing(fault.side).side.state


def _socket(stage: Stage, fault: Fault) -> Path:
    return stage.layout.authority_admin if fault.target is Target.AUTHORITY else stage.standing(fault.side).side.xds


def _kill_now(stage: Stage, fault: Fault) -> None:
    for pidfd in _send(stage, fault, signal.SIGKILL):
        os.close(pidfd)


async def _end_authority(stage: Stage, fault: Fault) -> None:
    authority = stage.scene.authority
    if authority is not None and authority.running:
        authority.send_signal(signal.SIGKILL)
        await authority.process.wait()


def _flip(path: Path, seed: int) -> None:
    """Some bytes all over the file, always in its first page too."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    content = bytearray(path.read_bytes())
    for number in range(FLIPPED):
        content[chance.randrange(PAGE if number < FLIPPED // 8 else len(content))] ^= 0xFF
    path.write_bytes(content)


_HOW: dict[Kind, Callable[[Stage, Fault], Undo]] = {
    Kind.NOTHING: _nothing,
    Kind.KILL: _kill,
    Kind.STOP_BRIEFLY: _stop,
    Kind.STOP: _stop,
    Kind.OUTLIVE: _stop,
    Kind.OUT_OF_MEMORY: _out_of_memory,
    Kind.MEMORY_REFUSED: _memory_refused,
    Kind.THROTTLE: _throttle,
    Kind.DESCRIPTORS: _descriptors,
    Kind.DISK_FULL: _disk_full,
    Kind.DISK_READ_ONLY: _read_only,
    Kind.CORRUPT: _corrupt,
    Kind.SOCKET_REMOVED: _socket_removed,
    Kind.SOCKET_REPLACED: _socket_replaced,
    Kind.CLOCK: _clock,
    Kind.EVENTS_OVERRUN: _events_overrun,
}
