"""What one process was started with: its scripts, and the libraries that come before its own. Read aside (aside.py).

Arguments and environment lie in the process's own memory: it can write there what it likes, from its first instruction
on. They are read right after its execution, which is before most programs have come to any instruction of their own.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from errno import ENOENT

from attestation.digests import Digest
from measurer import kernel
from measurer.processes import preload, scripts
from measurer.processes.binaries import Binaries, Binary
from measurer.processes.scripts import STDIN, Script

_MOST_ARGUMENTS, _MOST_ENVIRONMENT, _MOST_LIST = 1 << 18, 8 << 20, 1 << 16
_PART = 1 << 16
_MOST_PATH, _MOST_ENTRY = 4096, 1024
_TRIES, _BETWEEN = 10, 0.02
_DELETED = " (deleted)"
_OPEN = re.compile(r"/dev/(?:fd/([0-9]+)|std(in|out|err))|/proc/(?:self|thread-self|[0-9]+)/fd/([0-9]+)")
_STANDARD = {"in": 0, "out": 1, "err": 2}
_DEV_NULL = os.makedev(1, 3)


@dataclass(frozen=True, slots=True)
class Library:
    """source: the variable, or the list, that names it. entry: what it says there. path: where that leads to, empty
    where it is not known. digest: of a file."""

    source: str
    entry: str
    path: str = ""
    digest: Digest = ""


@dataclass(frozen=True, slots=True)
class Startup:
    """executable: the program itself, as the workload names it. unknown: why it is not known what it was started with;
    empty where it is."""

    executable: str = ""
    scripts: tuple[Binary, ...] = ()
    libraries: tuple[Library, ...] = ()
    unknown: str = ""


GONE = Startup()


def read(folder: int, binaries: Binaries, *, dynamic: bool) -> Startup:
    """folder: a /proc/PID descriptor. dynamic: it may load libraries. GONE where it has ended meanwhile."""
    hidden = GONE
    try:
        for _ in range(_TRIES):
            link = os.readlink("exe", dir_fd=folder)
            asked = scripts.asks(link.removesuffix(_DELETED))
            arguments = _bytes(folder, "cmdline", _MOST_ARGUMENTS) if asked else b""
            environment = _bytes(folder, "environ", _MOST_ENVIRONMENT) if dynamic else b""
            if os.readlink("exe", dir_fd=folder) != link:
                continue  # it has executed something else meanwhile
            if arguments or not asked:
                with closing(_Seen(folder, binaries)) as seen:
                    return _startup(seen, link, arguments, environment, dynamic=dynamic)
            hidden = Startup(binaries.path_of(link), unknown="it hides its arguments")
            time.sleep(_BETWEEN)  # in the midst of an execution there are none yet
    except OSError:
        return GONE  # or not for us to read, as what it runs, of which that is told
    return hidden


def has_no_list(root: int) -> bool:
    """Is there surely nothing at that place? By what the kernel remembers of folders alone: no file system is asked
    (openat2(2), RESOLVE_CACHED), so that none can make us wait.
    """
    resolve = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS | kernel.RESOLVE_CACHED
    try:
        os.close(kernel.open_below(root, preload.LIST.encode(), os.O_PATH, resolve))
    except OSError as error:
        return error.errno == ENOENT
    return False


def list_of(root: int, binaries: Binaries) -> tuple[Library, ...]:
    """What /etc/ld.so.preload names for whoever has this root folder."""
    try:
        found = kernel.open_below(root, preload.LIST.encode(), os.O_PATH)
    except OSError:
        return ()
    try:
        text = _content(found)
    finally:
        os.close(found)
    if text is None:
        return (Library(preload.LIST, ""),)
    return _libraries(root, preload.LIST, preload.of_list(text), binaries)


def _startup(seen: _Seen, link: str, arguments: bytes, environment: bytes, *, dynamic: bool) -> Startup:
    executable = seen.binaries.path_of(link)
    whole = len(arguments) < _MOST_ARGUMENTS
    given = [os.fsdecode(each) for each in arguments.split(b"\0", scripts.MOST_ARGUMENTS)]
    whole, given = whole and len(given) <= scripts.MOST_ARGUMENTS, given[: scripts.MOST_ARGUMENTS]
    told = scripts.read(executable, given[:-1] if given and not given[-1] else given, whole)
    found = [file for script in told.scripts for file in seen.files(script, environment)]
    named = [*preload.of_environment(environment), *told.libraries]
    libraries = [
        library
        for name, value in named
        for library in _libraries(seen.root, name, preload.entries(name, value), seen.binaries)
    ]
    if dynamic:
        libraries += list_of(seen.root, seen.binaries)
    if len(environment) >= _MOST_ENVIRONMENT or not told.whole:
        return Startup(executable, tuple(found), tuple(libraries), "it was started with more than is read")
    return Startup(executable, tuple(found), tuple(libraries))


class _Seen:
    """Files as the process sees them. Raises OSError where it has ended."""

    def __init__(self, folder: int, binaries: Binaries) -> None:
        self.folder, self.binaries = folder, binaries
        self.root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)

    def close(self) -> None:
        os.close(self.root)

    def files(self, script: Script, environment: bytes) -> Iterator[Binary]:
        """The file that is run, if there is one; without a digest where it cannot be read, or is gone by now."""
        for name in self._names(script, environment):
            opened = self._open(name)
            if opened < 0:
                continue
            try:
                if script.within or not stat.S_ISDIR(os.fstat(opened).st_mode):
                    yield from self._file(script, name, opened)
                    return
            finally:
                os.close(opened)
        missing = self._absolute(script.name)
        if script.sure and script.name != STDIN and len(os.fsencode(missing)) < _MOST_PATH:  # else it opens for nobody
            yield Binary(missing, "", deleted=True)

    def _file(self, script: Script, name: str, opened: int) -> Iterator[Binary]:
        status = os.fstat(opened)
        if stat.S_ISDIR(status.st_mode):
            main = _main_of(opened) if script.packages else ""
            endings = (*script.endings, f"/{script.within}")
            yield from self.files(Script(f"{name}/{main or script.within}", script.sure, endings=endings), b"")
        elif stat.S_ISREG(status.st_mode):
            yield _binary(opened, self.binaries)
        elif script.sure and script.name != STDIN and status.st_rdev != _DEV_NULL:
            yield Binary(name, "")

    def _names(self, script: Script, environment: bytes) -> Iterator[str]:
        yield script.name
        for ending in script.endings:
            yield script.name + ending
        if script.searched and "/" not in script.name:
            for folder in preload.variable(environment, b"PATH").split(":"):
                yield f"{folder or '.'}/{script.name}"

    def _open(self, name: str) -> int:
        """An O_PATH descriptor; -1 where there is no such file."""
        number = _number(name)
        try:
            if number is not None:
                return os.open(f"fd/{number}", os.O_PATH | os.O_CLOEXEC, dir_fd=self.folder)
            return kernel.open_below(self.root, os.fsencode(self._absolute(name)), os.O_PATH)
        except (OSError, ValueError):
            return -1

    def _absolute(self, name: str) -> str:
        """As seen from its root folder."""
        if name.startswith("/"):
            return name
        with suppress(OSError):
            root, here = (os.readlink(each, dir_fd=self.folder) for each in ("root", "cwd"))
            if root != "/" and (here == root or here.startswith(root + "/")):
                here = here[len(root) :]
            return f"{here}/{name}"
        return name


def _number(name: str) -> int | None:
    """Of the descriptor that a name stands for."""
    found = _OPEN.fullmatch(name)
    if found is None:
        return None
    number, standard, other = found.groups()
    return _STANDARD[standard] if standard else int(number or other)


def _binary(opened: int, binaries: Binaries) -> Binary:
    """The regular file behind an O_PATH descriptor, read however large it is."""
    link = os.readlink(f"/proc/self/fd/{opened}")  # noqa: PTH115 - bytes of a path that may be no text
    try:
        descriptor = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Binary(binaries.path_of(link), "")
    try:
        for _ in binaries.read_slowly(descriptor):
            pass
        return binaries.of_open(descriptor, link)
    except OSError:
        return Binary(binaries.path_of(link), "")
    finally:
        os.close(descriptor)


def _libraries(root: int, source: str, named: list[str], binaries: Binaries) -> tuple[Library, ...]:
    found = [_library(root, source, entry, binaries) for entry in named[: preload.MOST_ENTRIES]]
    if len(named) > preload.MOST_ENTRIES:
        found.append(Library(source, ""))
    return tuple(found)


def _library(root: int, source: str, entry: str, binaries: Binaries) -> Library:
    if len(entry) > _MOST_ENTRY:
        return Library(source, "")
    if not entry.startswith("/") or "$" in entry:
        return Library(source, entry)
    try:
        opened = kernel.open_below(root, os.fsencode(entry), os.O_PATH)
    except (OSError, ValueError):
        return Library(source, entry)
    try:
        if stat.S_ISREG(os.fstat(opened).st_mode):
            binary = _binary(opened, binaries)
            return Library(source, entry, binary.path, binary.digest)
        return Library(source, entry, binaries.path_of(os.readlink(f"/proc/self/fd/{opened}")))  # noqa: PTH115 - as above
    finally:
        os.close(opened)


def _main_of(folder: int) -> str:
    """What a package.json names as its program; empty where it names none."""
    try:
        opened = os.open("package.json", os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return ""
    try:
        main = json.loads(_content(opened) or b"{}").get("main")
    except (ValueError, AttributeError, RecursionError):
        return ""
    finally:
        os.close(opened)
    return main if isinstance(main, str) else ""


def _content(opened: int) -> bytes | None:
    """The first bytes of a regular file; None for what is none, or cannot be read, or is longer than is read."""
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        return None
    try:
        descriptor = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.read(descriptor, _MOST_LIST)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return found if len(found) < _MOST_LIST else None


def _bytes(folder: int, name: str, most: int) -> bytes:
    """The first bytes of a file below a /proc/PID descriptor. Raises OSError."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        parts, left = [], most
        while left > 0 and (part := os.read(descriptor, min(left, _PART))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
