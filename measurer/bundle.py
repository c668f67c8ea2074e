"""`python -m measurer.bundle FD BYTES SECONDS`: what can be seen of a workload, a JSON document a line, to that file.

The workload is hostile: it may have ten thousand processes with fifty thousand mappings each, names that are no text,
and arguments that are never read to their end. So what says most is written first, for all processes before more is
written of any; each part has its share of the bytes; each text, list and read has its bound; and what reads the
workload's own memory comes last, in a thread that is left behind when it hangs. Its environment is never read.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from attestation.errors import InvalidInput
from measurer import kernel
from measurer.clock import monotonic
from measurer.forensics import COMPLETE
from measurer.processes.proc import NAMESPACES, parse_stat

_INCOMPLETE = 3
_PR_SET_PDEATHSIG = 1
_MOST_TEXT, _MOST_READ = 4096, 1 << 18
_MOST_FILES, _MOST_MAPS, _MOST_ARGUMENTS, _MOST_LINES = 256, 256, 256, 4096
_PATIENCE = 0.2
"""Seconds that one read of a process's memory may take."""
_MOST_HANGS = 5

Record = dict[str, Any]


class Out:
    """Whole lines up to so many bytes, until so late (CLOCK_MONOTONIC seconds)."""

    def __init__(self, descriptor: int, most: int, until: float) -> None:
        self._descriptor, self._most, self._until = descriptor, most, until
        self._written, self.complete = 0, True

    def write(self, record: Record, share: float = 1.0) -> bool:
        """False where no more of this part is to be written. share: of all bytes, with what was written before."""
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if self._written + len(line) > self._most * share or monotonic() > self._until:
            self.complete = False
            return False
        os.write(self._descriptor, line)
        self._written += len(line)
        return True


class Process:
    """One that was found, by a descriptor of its folder. Raises OSError when it is gone, or another has its pid."""

    def __init__(self, pid: int, start: int) -> None:
        self.pid, self.start = pid, start
        self.folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if parse_stat(self.read("stat")).start_ticks != start:
                raise ProcessLookupError
        except (OSError, InvalidInput) as error:
            os.close(self.folder)
            raise ProcessLookupError from error

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.folder)

    def read(self, name: str, most: int = _MOST_TEXT * 4) -> bytes:
        """The first bytes of one of its files."""
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self.folder)
        try:
            parts, left = [], most
            while left > 0 and (part := os.read(descriptor, left)):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def link(self, name: str) -> str | None:
        try:
            return text(os.fsencode(os.readlink(name, dir_fd=self.folder)))
        except OSError:
            return None


def text(raw: bytes) -> str:
    """What is no UTF-8 is escaped; what is long is cut."""
    return raw[:_MOST_TEXT].decode("utf-8", "backslashreplace")


def collect(out: Out, first: int, pids: list[tuple[int, int]]) -> None:
    """The parts, what says most first; each share is of all bytes with what came before."""
    _each(out, pids, 0.4, _process)
    inodes: dict[str, int] = {}
    _each(out, pids, 0.6, lambda each: _files(each, inodes))
    start = dict(pids).get(first, -1)
    for share, part in ((0.7, lambda each: _sockets(each, inodes)), (0.75, _mounts)):
        with suppress(OSError), Process(first, start) as process:
            for record in part(process):
                if not out.write(record, share):
                    break
    _each(out, pids, 0.9, _maps)
    hangs = 0
    for pid, start in pids:
        with suppress(OSError), Process(pid, start) as process:
            record = _arguments(process)
            hangs += "hung" in record
            if not out.write(record) or hangs >= _MOST_HANGS:
                out.complete = False
                break


def _each(out: Out, pids: list[tuple[int, int]], share: float, look: Callable[[Process], Record]) -> None:
    for pid, start in pids:
        try:
            with Process(pid, start) as process:
                record = look(process)
        except OSError:  # it is gone, or does not let us look
            record = {"is": "gone", "pid": pid}
        if not out.write(record, share):
            return


def _process(process: Process) -> Record:
    """Of its rights, its user and its parent: the lines of its status that say so."""
    said = {}
    for line in process.read("status").split(b"\n"):  # the name may hold every other end of a line
        name, _, value = line.partition(b":")
        if name in _STATUS:
            said[name.decode()] = text(value.strip())
    return {
        "is": "process",
        "pid": process.pid,
        "start": process.start,
        "status": said,
        "exe": process.link("exe"),
        "cwd": process.link("cwd"),
        "root": process.link("root"),
        "cgroup": text(process.read("cgroup")),
        "namespaces": {name: process.link(f"ns/{name}") for name in NAMESPACES},
    }


_STATUS = frozenset(
    (
        b"Name",
        b"State",
        b"PPid",
        b"TracerPid",
        b"Uid",
        b"Gid",
        b"Groups",
        b"NSpid",
        b"VmRSS",
        b"Threads",
        b"CapEff",
        b"CapPrm",
        b"CapBnd",
        b"CapAmb",
        b"NoNewPrivs",
        b"Seccomp",
    )
)


def _files(process: Process, inodes: dict[str, int]) -> Record:
    names = sorted(os.listdir(f"/proc/self/fd/{process.folder}/fd"), key=int)  # noqa: PTH208 - names, not paths
    opened = {}
    for name in names[:_MOST_FILES]:
        to = process.link(f"fd/{name}")
        opened[name] = to
        if to is not None and to.startswith("socket:["):
            inodes.setdefault(to[8:-1], process.pid)
    return {"is": "files", "pid": process.pid, "open": opened, "left": max(0, len(names) - _MOST_FILES)}


_SOCKETS = {"tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "raw": 9, "raw6": 9, "unix": 6, "packet": 8, "netlink": 9}
"""Files of /proc/PID/net, and which column holds the inode (proc(5))."""


def _sockets(first: Process, inodes: dict[str, int]) -> Iterator[Record]:
    """Lines of the workload's network namespace. pid: one of its processes that has it open; None where none has."""
    for kind, column in _SOCKETS.items():
        try:
            lines = first.read(f"net/{kind}", _MOST_READ).split(b"\n")[1:]
        except OSError:
            continue
        told = 0
        for line in lines:
            columns = line.split()
            if len(columns) > column and told < _MOST_LINES:
                told += 1
                pid = inodes.get(text(columns[column]))
                yield {"is": "socket", "kind": kind, "pid": pid, "line": text(b" ".join(columns))}


def _mounts(first: Process) -> Iterator[Record]:
    for line in first.read("mountinfo", _MOST_READ).split(b"\n")[:_MOST_LINES]:
        if line:
            yield {"is": "mount", "line": text(line)}


def _maps(process: Process) -> Record:
    """The first ones; of each address, rights, offset, device, inode and name."""
    lines = process.read("maps", _MOST_READ).split(b"\n")
    told = [text(b" ".join(line.split())) for line in lines[:_MOST_MAPS] if line]
    return {"is": "maps", "pid": process.pid, "maps": told, "cut": len(lines) > _MOST_MAPS}


def _arguments(process: Process) -> Record:
    raw = patiently(lambda: process.read("cmdline", _MOST_TEXT + 1))
    if raw is None:
        return {"is": "arguments", "pid": process.pid, "arguments": [], "hung": True}
    arguments = [text(each) for each in raw[:_MOST_TEXT].split(b"\0")]
    cut = len(raw) > _MOST_TEXT or len(arguments) > _MOST_ARGUMENTS
    return {"is": "arguments", "pid": process.pid, "arguments": arguments[:_MOST_ARGUMENTS], "cut": cut}


def patiently(read: Callable[[], bytes]) -> bytes | None:
    """What is read, empty where it cannot be; None when it hangs. The thread is left to itself then."""
    answer: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def act() -> None:
        try:
            answer.put(read())
        except OSError:
            answer.put(b"")

    threading.Thread(target=act, daemon=True).start()
    try:
        return answer.get(timeout=_PATIENCE)
    except queue.Empty:
        return None


def main(arguments: list[str]) -> int:
    """Exits at once, whatever still hangs."""
    kernel.forbid_tracing()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(10)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # rather this than the workload or those who watch it
    descriptor, most, seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    told = json.load(sys.stdin)
    out = Out(descriptor, most, monotonic() + seconds)
    collect(out, told["first"], [(pid, start) for pid, start in told["pids"]])
    return COMPLETE if out.complete else _INCOMPLETE


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
