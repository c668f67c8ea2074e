"""What /proc says of one process (proc(5)), and the words for it. Who has to stay the same process is in held.py."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from attestation.errors import InvalidInput
from attestation.processes import ProcessKind
from measurer.processes import labels
from measurer.processes.binaries import Binary

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_STAT_BYTES, _STATUS_BYTES = 4096, 16384


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that we use. start_ticks: clock ticks since boot."""

    state: str
    parent: int
    session: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Rights:
    """What a process may do and who watches it: the part that can drift while it runs.

    attainable: the capabilities that it has or can take by itself; a bit each, as in CapEff. label: that of a Linux
    security module, as labels.py has it; empty where there is none.
    """

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    capabilities: str
    no_new_privileges: bool
    seccomp: int
    tracer: int
    namespaces: tuple[str, ...]
    attainable: int
    label: str = ""

    def watched_by(self, tracer: int) -> Rights:
        return replace(self, tracer=tracer)


@dataclass(frozen=True, slots=True)
class Read:
    """Rights, and what the kernel said of which they were made: its status, its namespaces, its label."""

    said: tuple[bytes, tuple[str, ...], str]
    rights: Rights


@dataclass(frozen=True, slots=True)
class Look:
    """One process, looked at once."""

    pid: int
    start_ticks: int
    rights: Rights
    binary: Binary

    @property
    def kind(self) -> ProcessKind:
        return ProcessKind(
            executable=self.binary.path,
            digest=self.binary.digest,
            loader=self.binary.loader,
            loader_digest=self.binary.loader_digest,
            uid=self.rights.uids[1],
            gid=self.rights.gids[1],
            capabilities=self.rights.capabilities,
            no_new_privileges=self.rights.no_new_privileges,
            seccomp=self.rights.seccomp,
            namespaces=self.rights.namespaces,
            deleted=self.binary.deleted,
        )


def parse_stat(text: bytes) -> Stat:
    """Raises InvalidInput. The command name may hold blanks and brackets, so fields count from its last ')'."""
    _, closing, rest = text.rpartition(b")")
    fields = rest.split()
    try:
        if not closing:
            raise ValueError("no command name")
        return Stat(fields[0].decode("ascii"), int(fields[1]), int(fields[3]), int(fields[19]))
    except (ValueError, IndexError) as error:
        raise InvalidInput("a process state that does not parse", where="/proc/PID/stat") from error


def parse_status(text: bytes, namespaces: tuple[str, ...] = ()) -> Rights:
    """The rights in /proc/PID/status. Raises InvalidInput when a field is missing or malformed."""
    fields = {}
    for line in text.split(b"\n"):  # a command may hold every other end of a line
        name, _, value = line.partition(b":")
        fields[name] = value.split()
    try:
        return Rights(
            uids=tuple(int(each) for each in fields[b"Uid"]),
            gids=tuple(int(each) for each in fields[b"Gid"]),
            capabilities=f"{int(fields[b'CapEff'][0], 16):016x}",
            no_new_privileges=fields[b"NoNewPrivs"][0] == b"1",
            seccomp=int(fields[b"Seccomp"][0]) if b"Seccomp" in fields else 0,
            tracer=int(fields[b"TracerPid"][0]),
            namespaces=namespaces,
            attainable=_attainable(fields),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidInput("a process status that does not parse", where="/proc/PID/status") from error


def said_of_rights(status: bytes) -> bytes:
    """The part of a /proc/PID/status that rights are made of; all of it where it is not as the kernel writes it.

    The rest, such as what memory it takes and how often it slept, is another one at each look.
    """
    ids, memory = status.find(b"\nTracerPid:"), status.find(b"\nFDSize:")
    capabilities, processors = status.find(b"\nCapInh:"), status.find(b"\nCpus_allowed:")
    if not 0 <= ids < memory < capabilities < processors:
        return status
    return status[ids:memory] + status[capabilities:processors]


def is_over(status: bytes) -> bool:
    """Does a /proc/PID/status say that it has ended?"""
    _, _, state = status.partition(b"\nState:\t")
    return state[:1] in (b"Z", b"X", b"x")


def tracer_in(status: bytes) -> int:
    """Who watches it, by its /proc/PID/status; 0 for nobody. Raises InvalidInput."""
    _, _, rest = status.partition(b"\nTracerPid:")
    try:
        return int(rest[: rest.index(b"\n")])
    except ValueError as error:
        raise InvalidInput("a process status that does not parse", where="/proc/PID/status") from error


def _attainable(fields: dict[bytes, list[bytes]]) -> int:
    """Root gets back by execve all that its bounding set holds, unless no_new_privs forbids it (capabilities(7))."""
    effective, permitted, bounding = (int(fields[name][0], 16) for name in (b"CapEff", b"CapPrm", b"CapBnd"))
    regains = b"0" in fields[b"Uid"] and fields[b"NoNewPrivs"][0] != b"1"
    return effective | permitted | (bounding if regains else 0)


def listing(folder: str) -> list[str]:
    """The names in a folder of /proc. Raises OSError."""
    return os.listdir(folder)  # noqa: PTH208 - read fifty times a second where polling is all we have


def open_process(pid: int) -> int:
    """A descriptor of /proc/PID. Raises OSError when there is no such process."""
    return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def stat_of(pid: int) -> Stat | None:
    """State, parent, session and start time; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read(_STAT_BYTES) or b"")
    except (OSError, InvalidInput):
        return None


def read_rights(pid: int) -> Rights | None:
    """The rights of a process; None when it is gone or a zombie."""
    try:
        folder = open_process(pid)
    except OSError:
        return None
    try:
        return rights_at(folder).rights
    except (OSError, InvalidInput):
        return None
    finally:
        os.close(folder)


def tracer_of(pid: int) -> int | None:
    """Who watches a process, 0 for nobody; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            status = file.read(_STATUS_BYTES) or b""
        return None if is_over(status) else tracer_in(status)
    except (OSError, InvalidInput):
        return None


def executable_of(pid: int) -> str:
    """The path of what a process runs, as it sees it; empty when it is gone or hidden from us."""
    try:
        link = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - called for every event, a path object costs more
        return link.removesuffix(" (deleted)")
    except OSError:
        return ""


def rights_at(folder: int, before: Read | None = None) -> Read:
    """The rights of the process behind a /proc/PID descriptor; the very same as before where the kernel says the same.

    Raises OSError, also for a zombie, InvalidInput.
    """
    status = read_small(folder, "status")
    if is_over(status):
        raise ProcessLookupError
    said = said_of_rights(status), namespaces_at(folder), labels.of_process(folder)
    if before is not None and before.said == said:
        return before
    return Read(said, replace(parse_status(said[0], said[1]), label=said[2]))


def thread_rights(folder: int, thread: int) -> Rights:
    """Of one thread, without its namespaces. Raises OSError, InvalidInput."""
    return parse_status(read_small(folder, f"task/{thread}/status"))


def read_small(folder: int, name: str, most: int = _STATUS_BYTES) -> bytes:
    """A file below a /proc/PID descriptor, in one reading. Raises OSError, ESRCH once the process is gone."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def namespaces_at(folder: int) -> tuple[str, ...]:
    """Links that name the namespaces of the process behind a /proc/PID descriptor; `unreadable` where we may not look.

    Raises OSError for a process that is ending or gone: that it has left its namespaces is no change of them.
    """
    links = []
    for name in NAMESPACES:
        try:
            links.append(os.readlink(f"ns/{name}", dir_fd=folder))
        except FileNotFoundError:
            if os.path.lexists(f"/proc/self/ns/{name}"):  # else this kernel has none of the kind
                raise
            links.append(f"{name}:unreadable")
        except OSError:
            read_small(folder, "stat")  # raises where it is gone; where it is not, we may not look
            links.append(f"{name}:unreadable")
    return tuple(links)
