"""What an intruder does in the name of a measured workload: each act is one small program.

They run inside the workload, sent as source, so this file imports the standard library alone. An act is a generator: it
yields once, when it is done, the moment (`now`) right before the call by which it was; what comes after takes it back.
The first line of its docstring says what it is.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOOKED = 2.5
"""Seconds after which whatever is looked at once a second has been looked at."""
DEADMAN = 4.0
QUEUE = Path("/proc/sys/fs/fanotify/max_queued_events")
NOBODY = 65534
CLONE_NEWUTS, PTRACE_SEIZE = 0x04000000, 0x4206
LINGERING = "0.3"
LINGER = f"import time; time.sleep({LINGERING})\n"
"""What a script does here: it is there for as long as it takes to look at it."""
CAPABILITY_VERSION_3, CAP_WAKE_ALARM = 0x20080522, 35


@dataclass(frozen=True)
class Where:
    """app: the measured folder. logs: what of it holds logs. loot: a folder that is not measured. tool: a program there
    that is referenced. script: one for Python, likewise. key_socket: the sidecar's. sidecar, measurer: their pids.
    """

    app: str
    logs: str
    loot: str
    tool: str
    script: str
    key_socket: str
    sidecar: int
    measurer: int

    @property
    def page(self) -> Path:
        return Path(self.app) / "pages" / "index.html"

    def stolen(self, name: str) -> Path:
        """A program of the intruder's own that ends at once, not measured."""
        return program(Path(self.loot) / name)


Act = Iterator[float]


def now() -> float:
    """CLOCK_BOOTTIME seconds, the same in every process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def program(path: Path, mark: bytes = b"") -> Path:
    """/bin/true under another name, and with other content where a mark is given."""
    path.write_bytes(Path("/bin/true").read_bytes() + mark)
    path.chmod(0o755)
    return path


def run(*command: str | Path, descriptor: int = -1) -> float:
    """When it was begun. descriptor: one that the program keeps open."""
    at = now()
    subprocess.run(command, check=False, stderr=subprocess.DEVNULL, pass_fds=[descriptor] if descriptor >= 0 else [])
    return at


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def succeed(result: int) -> None:
    """Raises OSError where a call of the C library failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# Files.


def write_in_place(where: Where) -> Act:
    """A measured file is overwritten where it is."""
    before = where.page.read_bytes()
    with where.page.open("r+b") as file:
        at = now()
        file.write(b"<h1>")
        file.truncate(4)
    yield at
    where.page.write_bytes(before)


def swap_by_rename(where: Where) -> Act:
    """A file from elsewhere is renamed over a measured one."""
    before, other = where.page.read_bytes(), Path(where.loot) / "page"
    other.write_bytes(b"<h1>other</h1>")
    at = now()
    other.rename(where.page)
    yield at
    where.page.write_bytes(before)


def remove(where: Where) -> Act:
    """A measured file is removed."""
    before = where.page.read_bytes()
    at = now()
    where.page.unlink()
    yield at
    where.page.write_bytes(before)


def add(where: Where) -> Act:
    """A file is added where none is referenced."""
    added = Path(where.app) / "pages" / "shell.php"
    at = now()
    added.write_bytes(b"<?php system($_GET['c']);")
    yield at
    added.unlink()


def put_a_pipe_there(where: Where) -> Act:
    """A named pipe takes a measured file's place, so that it cannot be read as one."""
    before, pipe = where.page.read_bytes(), Path(where.loot) / "pipe"
    os.mkfifo(pipe)
    at = now()
    pipe.rename(where.page)
    yield at
    where.page.unlink()
    where.page.write_bytes(before)


def change_the_mode(where: Where) -> Act:
    """A measured file is made writable for everybody."""
    before = where.page.stat().st_mode
    at = now()
    where.page.chmod(0o666)
    yield at
    where.page.chmod(before)


# Executions.


def run_what_was_dropped(where: Where) -> Act:
    """A program is written into a folder that is not measured, and run."""
    dropped = where.stolen("dropped")
    yield run(dropped)
    dropped.unlink()


def run_what_stays(where: Where) -> Act:
    """A program is written into a folder that is not measured, and runs on."""
    dropped = Path(where.loot) / "stays"
    shutil.copy("/bin/sleep", dropped)
    at = now()
    running = subprocess.Popen([dropped, "3600"])
    yield at
    running.kill()
    running.wait()
    dropped.unlink()


def run_a_script(where: Where) -> Act:
    """A script is run whose interpreter is a referenced program."""
    script = Path(where.loot) / "script"
    script.write_text(f"#!{where.tool}\n")
    script.chmod(0o755)
    yield run(script)
    script.unlink()


def run_what_was_exchanged(where: Where) -> Act:
    """Another program is run under a referenced path that nobody measures as a file."""
    tool = Path(where.tool)
    kept = tool.rename(tool.with_suffix(".kept"))
    program(tool, b"other")
    yield run(tool)
    kept.rename(tool)


def run_from_memory(where: Where) -> Act:
    """A program is run out of a memfd."""
    held = os.memfd_create("x", 0)
    os.write(held, Path("/bin/true").read_bytes())
    yield run(f"/proc/self/fd/{held}", descriptor=held)


def run_what_was_deleted(where: Where) -> Act:
    """A program is run after the last name that leads to it was removed."""
    dropped = where.stolen("deleted")
    held = os.open(dropped, os.O_RDONLY)
    dropped.unlink()
    yield run(f"/proc/self/fd/{held}", descriptor=held)


def run_from_the_logs(where: Where) -> Act:
    """A referenced program's copy is run from where logs are kept, which are not measured."""
    copy = Path(where.logs) / "copy"
    shutil.copy(where.tool, copy)
    yield run(copy, "0")
    copy.unlink()


def run_what_a_gate_refuses(where: Where) -> Act:
    """A program is written into a folder that is not measured, and is to be run, where policy has a gate."""
    dropped = where.stolen("dropped")
    at = now()
    with suppress(PermissionError):
        run(dropped)
    yield at
    dropped.unlink()


# What interpreters and loaders run.


def give_an_interpreter_a_script(where: Where) -> Act:
    """A referenced interpreter is given a script that was dropped where nothing is measured."""
    dropped = Path(where.loot) / "dropped.py"
    dropped.write_text(LINGER)
    yield run(sys.executable, dropped)
    dropped.unlink()


def give_a_loader_a_program(where: Where) -> Act:
    """The loader, which is referenced, is given a program that was dropped and is not executable."""
    dropped = where.stolen("loaded")
    shutil.copyfile("/bin/sleep", dropped)
    dropped.chmod(0o644)
    yield run(loader(), dropped, LINGERING)
    dropped.unlink()


def exchange_a_script(where: Where) -> Act:
    """A referenced script that nobody measures as a file is given another content, and run."""
    script = Path(where.script)
    before = script.read_bytes()
    script.write_text(f"{LINGER}# by an intruder\n")
    yield run(sys.executable, script)
    script.write_bytes(before)


def give_an_interpreter_a_log(where: Where) -> Act:
    """A referenced script's copy is run by its interpreter from where logs are kept, which are not measured."""
    copy = Path(where.logs) / "copy.py"
    shutil.copy(where.script, copy)
    yield run(sys.executable, copy, LINGERING)
    copy.unlink()


def preload_a_library(where: Where) -> Act:
    """A referenced program is run with a library of the intruder's before its own."""
    library = Path(where.loot) / "library.so"
    shutil.copy("/bin/true", library)  # the loader opens it; what comes of it does not matter
    at = now()
    subprocess.run([where.tool, LINGERING], check=False, env={"LD_PRELOAD": str(library)}, stderr=subprocess.DEVNULL)
    yield at
    library.unlink()


def loader() -> str:
    """That of this process, by its mappings."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(name for line in lines if (name := line.split()[-1]).rpartition("/")[2].startswith("ld-"))


# What a process may do.


def become_root(where: Where) -> Act:
    """A process that had given root up takes it back."""
    os.setresuid(NOBODY, NOBODY, 0)
    time.sleep(0.3)  # what happens in one breath is seen as one change
    at = now()
    os.seteuid(0)
    yield at


def raise_a_capability(where: Where) -> Act:
    """A process that had laid a capability down takes it up again."""
    effective, permitted, inheritable = capabilities()
    set_capabilities(effective & ~(1 << CAP_WAKE_ALARM), permitted, inheritable)
    time.sleep(LOOKED)
    at = now()
    set_capabilities(effective, permitted, inheritable)
    yield at


def enter_another_namespace(where: Where) -> Act:
    """A process goes into a namespace of its own."""
    time.sleep(LOOKED)
    at = now()
    succeed(libc().unshare(CLONE_NEWUTS))
    yield at


def run_a_shell_on_a_connection(where: Where) -> Act:
    """A program that policy calls a shell is run with a connection as its standard input and output."""
    out, other = connection()
    at = now()
    shell = subprocess.Popen([where.tool, "60"], stdin=out.fileno(), stdout=out.fileno())
    yield at
    shell.kill()
    shell.wait()
    other.close()


def put_a_connection_on_stdin(where: Where) -> Act:
    """An interpreter that runs already puts a connection in the place of its standard input."""
    out, other = connection()
    at = now()
    os.dup2(out.fileno(), 0)
    yield at
    other.close()


def connect_elsewhere(where: Where) -> Act:
    """The workload connects to an address that policy does not list."""
    with socket.create_server((outward(), 0)) as there, socket.socket() as out:
        out.bind(("127.0.0.2", 0))
        at = now()
        out.connect(there.getsockname())
        yield at


def connect_past_a_fence(where: Where) -> Act:
    """The workload wants to connect to an address that policy does not list, and is refused."""
    with socket.socket() as out:
        out.settimeout(1.0)
        at = now()
        try:
            out.connect(("203.0.113.1", 1 + os.getpid() % 60_000))  # the same one is not told anew for a while
        except PermissionError:
            yield at
            return
    raise ConnectionError("it was not refused")


def connection() -> tuple[socket.socket, socket.socket]:
    """Both ends, on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()), server.accept()[0]


def outward() -> str:
    """An address of this machine that is not loopback's: whoever comes to it from loopback comes to somewhere else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nothing_is_sent:
        nothing_is_sent.connect(("203.0.113.1", 9))
        return str(nothing_is_sent.getsockname()[0])


def attach(where: Where) -> Act:
    """A child attaches to the workload's first process, as a debugger does."""
    service = os.getppid()
    at = now()
    succeed(libc().ptrace(PTRACE_SEIZE, service, 0, 0))
    yield at


def capabilities() -> tuple[int, int, int]:
    """Effective, permitted and inheritable ones of this process (capget(2))."""
    found = ctypes.create_string_buffer(24)
    succeed(libc().capget(struct.pack("=II", CAPABILITY_VERSION_3, 0), found))
    words = struct.unpack("=6I", found.raw)
    effective, permitted, inheritable = (words[at] | words[at + 3] << 32 for at in range(3))
    return effective, permitted, inheritable


def set_capabilities(*sets: int) -> None:
    """capset(2)."""
    low, high = ([each >> shift & 0xFFFFFFFF for each in sets] for shift in (0, 32))
    succeed(libc().capset(struct.pack("=II", CAPABILITY_VERSION_3, 0), struct.pack("=6I", *low, *high)))


# Those who watch.


def ask_for_the_key(where: Where) -> Act:
    """The workload asks the sidecar for Envoy's key."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(5)
        at = now()
        asking.connect(where.key_socket)
        with suppress(ConnectionResetError):
            asking.recv(1)
        yield at


def do_what_a_detector_sees(where: Where) -> Act:
    """Something is done that a detector of somebody else's sees, which raises an alert."""
    at = now()
    (Path(where.loot) / "seen").write_text(f"{os.getpid()}\n")
    yield at


def flood_a_stopped_measurer(where: Where) -> Act:
    """The measurer is stopped until the kernel's queue of file events has run over, and let go."""
    flooded, count = os.open(where.page.parent, os.O_RDONLY), int(QUEUE.read_text()) + 100
    os.nice(-20)  # on a busy machine it would be stopped for longer than the dead-man time
    os.kill(where.measurer, signal.SIGSTOP)
    try:
        for number in range(count):
            os.symlink("nowhere", str(number), dir_fd=flooded)
            os.unlink(str(number), dir_fd=flooded)
    finally:
        at = now()
        os.kill(where.measurer, signal.SIGCONT)
    yield at


def stop_the_sidecar(where: Where) -> Act:
    """The sidecar is stopped for longer than the dead-man time, and let go."""
    at = now()
    os.kill(where.sidecar, signal.SIGSTOP)
    try:
        time.sleep(DEADMAN * 1.5)
    finally:
        os.kill(where.sidecar, signal.SIGCONT)
    yield at


def kill_the_measurer(where: Where) -> Act:
    """The measurer is killed."""
    at = now()
    os.kill(where.measurer, signal.SIGKILL)
    yield at
