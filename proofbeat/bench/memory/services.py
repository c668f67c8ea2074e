"""Real programs with code of every kind, as far as they are installed: compilers at run time among them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from attestation.errors import Unavailable

_JAVA = "class Idle { public static void main(String[] a) throws Exception { Thread.sleep(3600000); } }\n"

COMMANDS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "redis": ("redis-server", "--port", "0", "--save", "", "--unixsocket", "socket"),
        "jvm": ("java", "Idle.java"),
        "node": ("node", "-e", "setInterval(() => {}, 1000)"),
        "cpython": (sys.executable, "-c", "import ctypes, ssl, sqlite3, time; time.sleep(3600)"),
    }
)
"""Run in a folder of their own."""
SETTLING = 2.0
"""Seconds in which a program loads and compiles what it begins with."""


def missing(name: str) -> bool:
    return shutil.which(COMMANDS[name][0]) is None


@contextmanager
def service(name: str, folder: Path) -> Iterator[int]:
    """Its pid, once it has settled. Raises Unavailable where it ends before that."""
    (folder / "Idle.java").write_text(_JAVA)
    running = subprocess.Popen(
        COMMANDS[name], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(SETTLING)
        if running.poll() is not None:
            raise Unavailable(f"{name} ended at once", where="bench memory", mend=f"Run {COMMANDS[name][0]} by hand.")
        yield running.pid
    finally:
        running.kill()
        running.wait()


def mappings(pid: int) -> tuple[int, int]:
    """How many there are, and how many of them can be executed."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return len(lines), sum(line.split()[1][2] == "x" for line in lines)


def text(pid: int) -> Iterator[tuple[int, int, int, str]]:
    """Start, end, offset and path of each file's code in a process."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        where, rights, offset, _, inode, *path = line.split(None, 5)
        if rights[2] == "x" and inode != "0" and path and Path(path[0]).is_file():
            start, _, end = where.partition("-")
            yield int(start, 16), int(end, 16), int(offset, 16), path[0]
